"""What ``path`` may be where a dataset is made: web addresses, or places of datastores."""

from collections.abc import Sequence

from stellwerk.api import DatasetFiles, DatasetPaths, DatasetUrls, DatastorePath
from stellwerk.client import Client
from stellwerk.datapath import DataPath
from stellwerk.datastore import Datastore
from stellwerk.errors import UserError
from stellwerk.refusals import naming_the_field
from stellwerk.run_artifacts import ARTIFACT_STORE, artifacts

DatasetPath = str | DataPath | tuple[Datastore, str]


def source_of(
    path: DatasetPath | Sequence[DatasetPath],
) -> tuple[Client | None, DatasetUrls | DatasetPaths | DatasetFiles]:
    """The source of a dataset, and the client it belongs to, if any. Raises UserError."""
    paths: list[object] = [path]
    if isinstance(path, Sequence) and not isinstance(path, str) and not _is_pair(path):
        paths = list(path)
    if not paths:
        raise UserError("path is empty; name at least one file", field="path")
    if all(isinstance(each, str) for each in paths):
        return None, _urls([str(each) for each in paths])
    if any(isinstance(each, str) for each in paths):
        raise UserError("path: web addresses and datastore paths cannot be mixed", field="path")
    places = [_place(each) for each in paths]
    if len(places) == 1:
        client = places[0].datastore.client
        return client, place_source(client, places[0].datastore.name, places[0].path)
    with naming_the_field():
        listed = tuple(
            DatastorePath(datastore=each.datastore.name, path=each.path) for each in places
        )
        return places[0].datastore.client, DatasetPaths(paths=listed)


def place_source(client: Client, datastore: str, path: str) -> DatasetPaths | DatasetFiles:
    """The source of what lies at one place of a datastore."""
    if datastore == ARTIFACT_STORE:
        return artifacts(client, path)
    with naming_the_field():
        return DatasetPaths(paths=(DatastorePath(datastore=datastore, path=path),))


def _place(given: object) -> DataPath:
    if isinstance(given, DataPath):
        return given
    if isinstance(given, Datastore):
        return given.path()
    if _is_pair(given) and isinstance(given[1], str):  # type: ignore[index]
        return DataPath(*given)  # type: ignore[misc]
    raise UserError(
        f"path: got {given!r}; give web addresses, (datastore, 'path') or datastore.path('path')",
        code="dataset.path",
        field="path",
    )


def _is_pair(path: object) -> bool:
    return isinstance(path, tuple) and len(path) == 2 and isinstance(path[0], Datastore)


def _urls(urls: list[str]) -> DatasetUrls:
    for each in urls:
        if not each.startswith(("http://", "https://")):
            raise UserError(
                f"path: {each[:200]!r} is neither a web address nor a datastore path. Upload local "
                "files with Dataset.File.upload_directory or Datastore.upload_files.",
                code="dataset.path",
                field="path",
            )
    with naming_the_field():
        return DatasetUrls(urls=tuple(urls))
