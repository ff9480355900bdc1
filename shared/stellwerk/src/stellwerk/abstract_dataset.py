"""What datasets of files and tables have in common: identity, registration, use in runs."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Any, Self

from stellwerk.answers import Anything
from stellwerk.api import (
    DatasetFileView,
    DatasetPart,
    DatasetPatch,
    DatasetRegisterRequest,
    DatasetRequest,
    DatasetSource,
    DatasetView,
)
from stellwerk.client import Client, file_path, segment
from stellwerk.downloads import RemoteFile, download, inside
from stellwerk.errors import UserError
from stellwerk.ids import derived_id
from stellwerk.refusals import naming_the_field

if TYPE_CHECKING:
    from stellwerk.dataset_consumption import DatasetConsumptionConfig
    from stellwerk.workspace import Workspace


class AbstractDataset:
    """A dataset under one id. Immutable; :meth:`register` gives a name and returns a new object.

    It is a plan (``request``) until it is used, and then what the platform knows (``view``).
    """

    def __init__(
        self,
        *,
        client: Client | None = None,
        view: DatasetView | None = None,
        request: DatasetRequest | None = None,
    ) -> None:
        self._client, self._view, self._request = client, view, request

    def __repr__(self) -> str:
        shown = self._view.dataset_id if self._view else "not saved yet"
        return f"{type(self).__name__}(id={shown!r}, name={self.name!r}, version={self.version})"

    @property
    def id(self) -> str:
        """The dataset's id; saves it where that was not done yet."""
        return self.saved(None).dataset_id

    @property
    def name(self) -> str | None:
        """The registered name."""
        return self._view.name if self._view else None

    @property
    def version(self) -> int | None:
        """The registered version, from 1."""
        return self._view.version if self._view else None

    @property
    def description(self) -> str | None:
        """The description given at registration."""
        return self._view.description if self._view else None

    @property
    def tags(self) -> dict[str, str | None]:
        """The tags given at registration."""
        return dict(self._view.tags) if self._view else {}

    @property
    def created(self) -> bool:
        """False where a registration found the same content registered already."""
        return self._view is None or self._view.created

    def saved(self, client: Client | None) -> DatasetView:
        """The platform's view of this dataset, made there if it is only a plan yet."""
        if self._view is None:
            self._client = client or self._client or Client.connect()
            self._view = self._client.call("POST", "/datasets", DatasetView, body=self._request)
        return self._view

    def register(
        self,
        workspace: "Workspace",
        name: str,
        description: str | None = None,
        tags: dict[str, str | None] | None = None,
        create_new_version: bool = False,
    ) -> Self:
        """Give the dataset a name. Raises ConflictError where it is taken by other content."""
        dataset_id = self.saved(workspace.client).dataset_id
        with naming_the_field():
            request = DatasetRegisterRequest(
                name=name,
                description=description,
                tags=tags or {},
                create_new_version=create_new_version,
            )
        view = workspace.client.call(
            "POST", f"/datasets/{segment(dataset_id)}/register", DatasetView, body=request
        )
        return type(self)(client=workspace.client, view=view)

    def update(
        self, description: str | None = None, tags: dict[str, str | None] | None = None
    ) -> Self:
        """Change description and tags of the registered version; other tags stay."""
        return self._patched({"description": description, "tags": tags or {}})

    def add_tags(self, tags: dict[str, str | None]) -> Self:
        """Add tags to the registered version, or change them."""
        return self._patched({"tags": tags})

    def remove_tags(self, tags: Sequence[str]) -> Self:
        """Take tags off the registered version."""
        return self._patched({"remove_tags": (tags,) if isinstance(tags, str) else tuple(tags)})

    def _patched(self, change: dict[str, Any]) -> Self:
        with naming_the_field():
            patch = DatasetPatch(**change)
        name = self._registered_name()
        path = f"/datasets/by-name/{segment(name)}/versions/{self.version}"
        self._view = self._connected().call("PATCH", path, DatasetView, body=patch)
        return self

    def _registered_name(self) -> str:
        if self.name is None:
            raise UserError(
                "the dataset is not registered; register() gives it a name",
                code="dataset.not_registered",
            )
        return self.name

    def unregister_all_versions(self) -> None:
        """Take the name away from all its versions; runs that used them keep their data."""
        name = self._registered_name()
        self._connected().call("DELETE", f"/datasets/by-name/{segment(name)}", Anything)
        self._view = self.saved(None).model_copy(update={"name": None, "version": None})

    def files(self) -> list[DatasetFileView]:
        """All files with their sizes and digests, as far as they are known."""
        view = self.saved(None)
        path = f"/datasets/{segment(view.dataset_id)}/files"
        return list(self._connected().pages(path, DatasetFileView, {"limit": 1000}))

    def to_path(self) -> list[str]:
        """Paths of all files within the dataset, each beginning with ``/``."""
        return ["/" + each.path.lstrip("/") for each in self.files()]

    def download(
        self,
        target_path: str | None = None,
        overwrite: bool = False,
        ignore_not_found: bool = False,  # noqa: ARG002 - v1's; a pinned file is always there
        *,
        show_progress: bool = False,
    ) -> list[str]:
        """Fetch all files and return their local paths; None: a new temporary folder.

        Raises ConflictError where a file exists already and not ``overwrite``.
        """
        folder = Path(target_path) if target_path else Path(mkdtemp(prefix="stellwerk-"))
        base = f"/datasets/{segment(self.id)}/files/"
        wanted = [
            RemoteFile(
                base + file_path(each.path.lstrip("/")),
                inside(folder, each.path),
                each.size,
                each.sha256,
            )
            for each in self.files()
        ]
        fetched = download(
            self._connected(), wanted, overwrite=overwrite, label="Dataset", show=show_progress
        )
        return [str(each.absolute()) for each in fetched]

    def as_named_input(self, name: str) -> "DatasetConsumptionConfig":
        """The dataset under the name a run knows it by. Raises UserError for a bad name."""
        from stellwerk.dataset_consumption import DatasetConsumptionConfig  # noqa: PLC0415 - a ring

        return DatasetConsumptionConfig(name, self)

    def input_name(self) -> str:
        """The name of an input that was given none: ``input_`` and eight digits of the id."""
        if self._view is not None:
            return f"input_{self._view.dataset_id[:8]}"
        plan = self._request.model_dump_json() if self._request else ""
        return f"input_{derived_id('input', plan)[:8]}"

    def source(self) -> DatasetSource:
        """The source of a dataset that is made of this one's files."""
        if self._view is None and self._request is not None:
            return self._request.source
        return DatasetPart(dataset_id=self.id)

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client.connect()
        return self._client
