"""Datasets and datastores."""

from typing import Annotated

from fastapi import APIRouter, Body, Query, Response
from pydantic import Field

from stellwerk.api import (
    DatasetFiles,
    DatasetFileView,
    DatasetPatch,
    DatasetRegisterRequest,
    DatasetRequest,
    DatasetView,
    DatastoreUploadRequest,
    DatastoreUploadView,
    Page,
)
from stellwerk.errors import ConflictError
from stellwerk_gateway import examples
from stellwerk_gateway.downloads import no_file, to_blob
from stellwerk_gateway.fields import (
    DatasetId,
    DatasetName,
    DatastoreName,
    FilePath,
    PageQuery,
    Version,
    VersionNumber,
    relative_path,
)
from stellwerk_gateway.platform import Here, Platform
from stellwerk_gateway.problems import documented
from stellwerk_gateway.replies import UnregisteredView
from stellwerk_gateway.run_scope import Within
from stellwerk_gateway.wrapped import NamedUpload, Registration

router = APIRouter(tags=["datasets"])

CHECKED_IN_A_SECOND = 100
LONGEST_CHECK_S = 20.0
"""Each file's blob is looked for in the store before it becomes part of anything."""


class DatasetQuery(PageQuery):
    """What to list."""

    name: str | None = Field(None, max_length=255, description="All versions of this dataset.")


class PrefixQuery(PageQuery):
    """What to list of a datastore."""

    prefix: str = Field("", max_length=1024, description="Only paths that begin like this.")


@router.post(
    "/datasets",
    status_code=201,
    summary="Make a dataset",
    responses=documented(400, 404, 408, 413, 415),
)
async def create_dataset(
    body: Annotated[DatasetRequest, Body(openapi_examples=examples.DATASET)], platform: Here
) -> DatasetView:
    """From uploaded files, web addresses or datastore paths; it has no name yet."""
    entries = body.source.entries if isinstance(body.source, DatasetFiles) else ()
    wait_s = patience_s(len(entries))
    return await platform.send("dataset", "dataset-create", body, DatasetView, wait_s=wait_s)


@router.post(
    "/datasets/{dataset_id}/register",
    status_code=201,
    summary="Give a dataset a name",
    responses=documented(400, 404, 409, 413),
)
async def register_dataset(
    dataset_id: DatasetId, body: DatasetRegisterRequest, platform: Here, response: Response
) -> DatasetView:
    """A new version (201), or the one that has this content already (200)."""
    request = Registration(dataset_id=dataset_id, request=body)
    view = await platform.send("dataset", "dataset-register", request, DatasetView)
    response.status_code = 201 if view.created else 200
    return view


@router.get("/datasets", summary="List datasets")
async def list_datasets(
    query: Annotated[DatasetQuery, Query()], platform: Here
) -> Page[DatasetView]:
    """The latest version of each registered dataset, or all versions of one."""
    return await platform.ask("dataset", "dataset-list", Page[DatasetView], **query.model_dump())


@router.get("/datasets/by-name/{dataset}", summary="Find a dataset", responses=documented(404))
async def get_dataset_by_name(
    dataset: DatasetName, platform: Here, version: Version = None
) -> DatasetView:
    """A registered dataset, the latest version unless one is asked for."""
    return await platform.ask("dataset", "dataset-get", DatasetView, name=dataset, version=version)


@router.patch(
    "/datasets/by-name/{dataset}/versions/{version}",
    summary="Change a dataset's tags",
    responses=documented(400, 404, 413),
)
async def patch_dataset(
    dataset: DatasetName, version: VersionNumber, body: DatasetPatch, platform: Here
) -> DatasetView:
    """Merges tags and sets the description of one registered version."""
    patch = body.model_dump(exclude_unset=True)
    return await platform.ask(
        "dataset", "dataset-patch", DatasetView, name=dataset, version=version, patch=patch
    )


@router.delete("/datasets/by-name/{dataset}", summary="Unregister", responses=documented(404))
async def unregister_dataset(dataset: DatasetName, platform: Here) -> UnregisteredView:
    """Takes the name away from all versions; runs that used them keep their data."""
    return await platform.ask("dataset", "dataset-unregister", UnregisteredView, name=dataset)


@router.get("/datasets/{dataset_id}", summary="Show a dataset", responses=documented(404))
async def get_dataset(dataset_id: DatasetId, platform: Here) -> DatasetView:
    """A dataset by id, registered or not."""
    return await platform.ask("dataset", "dataset-get", DatasetView, dataset_id=dataset_id)


@router.get("/datasets/{dataset_id}/files", summary="List its files", responses=documented(404))
async def list_dataset_files(
    dataset_id: DatasetId, query: Annotated[PageQuery, Query()], platform: Here
) -> Page[DatasetFileView]:
    """Paths, sizes and digests, by path."""
    return await platform.ask(
        "dataset", "dataset-files", Page[DatasetFileView], dataset_id=dataset_id,
        **query.model_dump(),
    )  # fmt: skip


@router.get(
    "/datasets/{dataset_id}/files/{path:path}",
    status_code=307,
    response_class=Response,
    summary="Download a file of a dataset",
    responses=documented(404, 409),
)
async def get_dataset_file(dataset_id: DatasetId, path: FilePath, platform: Here) -> Response:
    """A redirect to the object store, valid for 15 minutes."""
    name = relative_path(path)
    file = await _find(platform, dataset_id, name)
    if file.sha256 is None:
        raise ConflictError(
            f"{name!r} is a web file that has not been read yet; try again in a moment.",
            code="dataset.not_read",
            field="path",
        )
    return to_blob(platform, file.sha256, name)


@router.post(
    "/datastores/{datastore}/files",
    status_code=201,
    summary="Put files into a datastore",
    responses=documented(400, 408, 409, 413, 415),
)
async def upload_files(
    datastore: DatastoreName, body: DatastoreUploadRequest, platform: Here, scope: Within
) -> DatastoreUploadView:
    """Gives uploaded blobs paths; files that are there with other content need `overwrite`."""
    scope.overwrite(body.overwrite)
    request = NamedUpload(name=datastore, request=body)
    wait_s = patience_s(len(body.entries))
    return await platform.send(
        "dataset", "datastore-upload", request, DatastoreUploadView, wait_s=wait_s
    )


@router.get("/datastores/{datastore}/files", summary="List a datastore", responses=documented(404))
async def list_datastore_files(
    datastore: DatastoreName, query: Annotated[PrefixQuery, Query()], platform: Here
) -> Page[DatasetFileView]:
    """Files by path."""
    return await platform.ask(
        "dataset", "datastore-files", Page[DatasetFileView], name=datastore, **query.model_dump()
    )


@router.get(
    "/datastores/{datastore}/files/{path:path}",
    status_code=307,
    response_class=Response,
    summary="Download a file of a datastore",
    responses=documented(404),
)
async def get_datastore_file(datastore: DatastoreName, path: FilePath, platform: Here) -> Response:
    """A redirect to the object store, valid for 15 minutes."""
    name = relative_path(path)
    page = await platform.ask(
        "dataset", "datastore-files", Page[DatasetFileView], name=datastore, prefix=name, limit=1
    )
    if not page.items or page.items[0].path != name or page.items[0].sha256 is None:
        raise no_file(path)
    return to_blob(platform, page.items[0].sha256, name)


def patience_s(files: int) -> float:
    """Seconds to wait longer than usual for a request that names so many files."""
    return min(files / CHECKED_IN_A_SECOND, LONGEST_CHECK_S)


async def _find(platform: Platform, dataset_id: str, path: str) -> DatasetFileView:
    """One file of a dataset. Raises NotFoundError ``file.not_found``."""
    page = await platform.ask(
        "dataset", "dataset-files", Page[DatasetFileView], dataset_id=dataset_id, path=path
    )
    if not page.items:
        raise no_file(path)
    return page.items[0]
