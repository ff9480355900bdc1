"""Datasets and what lies in datastores."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stellwerk.api.base import Description, View
from stellwerk.manifest import ManifestEntry
from stellwerk.runspec import Name, RelativePath, Spec, Tags
from stellwerk.tabular_definition import TabularDefinition


class DatasetFiles(Spec):
    """Files whose blobs are uploaded.

    ``base`` is the folder taken off their paths; None: the one that all of them share.
    """

    kind: Literal["files"] = "files"
    entries: Annotated[tuple[ManifestEntry, ...], Field(min_length=1, max_length=100_000)]
    base: RelativePath | None = None


class DatasetUrls(Spec):
    """Web addresses, fetched by the platform through its egress guard when first read."""

    kind: Literal["urls"] = "urls"
    urls: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=8, max_length=4096)], ...],
        Field(min_length=1, max_length=1000),
    ]


class DatastorePath(Spec):
    """A file or folder (or glob) of a datastore."""

    datastore: Name = "workspaceblobstore"
    path: RelativePath


class DatasetPaths(Spec):
    """Datastore paths, pinned to what lies there when the dataset is made."""

    kind: Literal["datastore"] = "datastore"
    paths: Annotated[tuple[DatastorePath, ...], Field(min_length=1, max_length=1000)]


class DatasetPart(Spec):
    """The files of another dataset, or those of them at ``paths``."""

    kind: Literal["dataset"] = "dataset"
    dataset_id: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    paths: (
        Annotated[
            tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...],
            Field(min_length=1, max_length=100_000),
        ]
        | None
    ) = None


DatasetSource = Annotated[
    DatasetFiles | DatasetUrls | DatasetPaths | DatasetPart, Field(discriminator="kind")
]


class DatasetRequest(Spec):
    """Body of ``POST /api/v1/datasets``: make a dataset; no name yet.

    With ``tabular`` it is a table made of the files.
    """

    source: DatasetSource
    tabular: TabularDefinition | None = None


class DatasetRegisterRequest(Spec):
    """Body of ``POST /api/v1/datasets/{dataset_id}/register``."""

    name: Name
    description: Description | None = None
    tags: Tags = {}
    create_new_version: bool = False


class DatasetPatch(Spec):
    """Body of ``PATCH /api/v1/datasets/by-name/{name}/versions/{version}``; tags are merged."""

    description: Description | None = None
    tags: Tags = {}
    remove_tags: tuple[str, ...] = ()


class DatasetView(View):
    """A dataset; ``name`` and ``version`` are None until it is registered.

    ``tabular`` says how a table is made of the files, None for a dataset of files. ``bytes`` is
    None while web files have not been read. ``created`` in the answer to a registration tells a
    new version from one that had the same content.
    """

    dataset_id: str
    name: str | None = None
    version: int | None = None
    description: str | None = None
    tags: dict[str, str | None] = {}
    files: int
    bytes: int | None = None
    source: str
    tabular: TabularDefinition | None = None
    created_at: datetime
    created: bool = True


class DatasetFileView(View):
    """One file of a dataset; ``sha256`` is known once it has been read.

    ``instead``: where a web file was read, if not from its own ``url``.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    instead: str | None = None


class DatastoreUploadRequest(Spec):
    """Body of ``POST /api/v1/datastores/{name}/files``: blobs get paths in a datastore."""

    entries: Annotated[tuple[ManifestEntry, ...], Field(min_length=1, max_length=100_000)]
    overwrite: bool = False


class DatastoreUploadView(View):
    """How many files were new and how many were there already with the same content."""

    stored: int
    unchanged: int
