"""File datasets: what they are made of, how a run gets them, and their files."""

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Literal

from stellwerk.api import (
    DatasetFiles,
    DatasetFileView,
    DatasetPaths,
    DatasetRegisterRequest,
    DatasetRequest,
    DatasetUrls,
    DatasetView,
    DatastorePath,
)
from stellwerk.client import Client, file_path, segment
from stellwerk.datastore import DataPath, Datastore
from stellwerk.downloads import RemoteFile, download, inside
from stellwerk.errors import NotFoundError, UserError
from stellwerk.ids import derived_id
from stellwerk.localfiles import LocalFile, hashed, local_file, manifest_of, tree
from stellwerk.refusals import naming_the_field
from stellwerk.runspec import DatasetInput
from stellwerk.uploads import upload

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

DatasetPath = str | DataPath | tuple[Datastore, str]

_INPUT_NAME = re.compile(r"[a-zA-Z_]\w*", re.ASCII)


class FileDataset:
    """Files under one id. Immutable; :meth:`register` gives a name and returns a new object."""

    def __init__(
        self,
        *,
        client: Client | None = None,
        view: DatasetView | None = None,
        request: DatasetRequest | None = None,
        input_name: str | None = None,
    ) -> None:
        self._client, self._view, self._request = client, view, request
        self._input_name = input_name

    def __repr__(self) -> str:
        shown = self._view.dataset_id if self._view else "not saved yet"
        return f"FileDataset(id={shown!r}, name={self.name!r}, version={self.version})"

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
    ) -> "FileDataset":
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
        return FileDataset(client=workspace.client, view=view)

    def to_path(self) -> list[str]:
        """Paths of all files within the dataset, each beginning with ``/``."""
        return ["/" + each.path.lstrip("/") for each in self.files()]

    def files(self) -> list[DatasetFileView]:
        """All files with their sizes and digests, as far as they are known."""
        view = self.saved(None)
        path = f"/datasets/{segment(view.dataset_id)}/files"
        return list(self._connected().pages(path, DatasetFileView, {"limit": 1000}))

    def download(
        self,
        target_path: str | None = None,
        overwrite: bool = False,
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

    def as_named_input(self, name: str) -> "FileDataset":
        """The same dataset under the name a run knows it by."""
        _check_input_name(name)
        return FileDataset(
            client=self._client, view=self._view, request=self._request, input_name=name
        )

    def as_mount(self, path_on_compute: str | None = None) -> "DatasetConsumptionConfig":
        """Let a run see the files, read-only."""
        return DatasetConsumptionConfig(
            self._input_name or self._default_name(), self, "mount", path_on_compute
        )

    def as_download(self, path_on_compute: str | None = None) -> "DatasetConsumptionConfig":
        """Give a run its own copy of the files."""
        return DatasetConsumptionConfig(
            self._input_name or self._default_name(), self, "download", path_on_compute
        )

    def _default_name(self) -> str:
        if self._view is not None:
            identity = self._view.dataset_id
        else:
            identity = self._request.model_dump_json() if self._request else ""
        return f"input_{derived_id('input', identity)[:8]}"

    def _connected(self) -> Client:
        if self._client is None:
            self._client = Client.connect()
        return self._client


class DatasetConsumptionConfig:
    """How a run gets a dataset. Usable as a script argument, where it becomes the path."""

    def __init__(
        self,
        name: str,
        dataset: FileDataset,
        mode: Literal["mount", "download", "direct"] = "direct",
        path_on_compute: str | None = None,
    ) -> None:
        _check_input_name(name)
        self.name = name
        self.dataset = dataset
        self.mode = mode
        self.path_on_compute = path_on_compute

    def __repr__(self) -> str:
        return f"DatasetConsumptionConfig:{self.name}"

    def as_mount(self, path_on_compute: str | None = None) -> "DatasetConsumptionConfig":
        """The same input, mounted."""
        return DatasetConsumptionConfig(self.name, self.dataset, "mount", path_on_compute)

    def as_download(self, path_on_compute: str | None = None) -> "DatasetConsumptionConfig":
        """The same input, downloaded."""
        return DatasetConsumptionConfig(self.name, self.dataset, "download", path_on_compute)

    def spec(self, client: Client) -> DatasetInput:
        """The input of a run request; saves the dataset where that was not done yet."""
        view = self.dataset.saved(client)
        named = view.name is not None and view.version is not None
        return DatasetInput(
            dataset=view.name if named and view.name else view.dataset_id,
            version=view.version if named else None,
            mode=self.mode,
            path=self.path_on_compute,
        )


class _FileDatasetFactory:
    """``Dataset.File``."""

    @staticmethod
    def from_files(path: DatasetPath | Sequence[DatasetPath]) -> FileDataset:
        """A dataset of web addresses, or of paths and globs of a datastore."""
        single = isinstance(path, str | DataPath) or _is_pair(path)
        paths = [path] if single else list(path)  # type: ignore[arg-type]
        if not paths:
            raise UserError("path is empty; name at least one file", field="path")
        if all(isinstance(each, str) for each in paths):
            return _from_urls([str(each) for each in paths])
        if any(isinstance(each, str) for each in paths):
            raise UserError("path: web addresses and datastore paths cannot be mixed", field="path")
        places = [each if isinstance(each, DataPath) else DataPath(*each) for each in paths]  # type: ignore[misc]
        listed = tuple(
            DatastorePath(datastore=each.datastore.name, path=each.path.strip("/") or "**")
            for each in places
        )
        return FileDataset(
            client=places[0].datastore.client,
            request=DatasetRequest(source=DatasetPaths(paths=listed)),
        )

    @staticmethod
    def from_local(
        workspace: "Workspace", paths: Sequence[str], show_progress: bool = False
    ) -> FileDataset:
        """A dataset of local files and folders (beyond v1): no datastore path, only content."""
        found: list[LocalFile] = []
        for each in map(Path, paths):
            found += tree(each) if each.is_dir() else [local_file(each, each.name)]
        if not found:
            raise UserError("path: there is no file to upload", field="path")
        files = hashed(found)
        upload(workspace.client, files, label="Dataset upload", show=show_progress)
        source = DatasetFiles(entries=manifest_of(files).entries)
        return FileDataset(client=workspace.client, request=DatasetRequest(source=source))

    @staticmethod
    def upload_directory(
        src_dir: str,
        target: DataPath | tuple[Datastore, str] | Datastore,
        pattern: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> FileDataset:
        """Upload a folder to a datastore, and the dataset of what lies there."""
        place = target.path() if isinstance(target, Datastore) else target
        place = place if isinstance(place, DataPath) else DataPath(*place)
        prefix = "" if place.path == "**" else place.path
        uploaded = place.datastore.upload(src_dir, prefix, overwrite, show_progress, pattern)
        return _FileDatasetFactory.from_files(uploaded)


class Dataset:
    """Ways to get a dataset."""

    File = _FileDatasetFactory

    @staticmethod
    def get_by_name(
        workspace: "Workspace", name: str, version: int | Literal["latest"] = "latest"
    ) -> FileDataset:
        """A registered dataset. Raises NotFoundError."""
        params = {} if version == "latest" else {"version": str(version)}
        try:
            view = workspace.client.get(f"/datasets/by-name/{segment(name)}", DatasetView, params)
        except NotFoundError as error:
            raise NotFoundError(
                f"Cannot find dataset registered with name {name!r} (version: {version}) in the "
                f"workspace. {error.message}",
                code=error.code,
                field="name",
            ) from error
        return FileDataset(client=workspace.client, view=view)

    @staticmethod
    def get_by_id(workspace: "Workspace", id: str) -> FileDataset:  # noqa: A002 - v1's name
        """A dataset by its id. Raises NotFoundError."""
        view = workspace.client.get(f"/datasets/{segment(id)}", DatasetView)
        return FileDataset(client=workspace.client, view=view)

    @staticmethod
    def get_all(workspace: "Workspace") -> dict[str, FileDataset]:
        """The latest version of every registered dataset, by name."""
        views = workspace.client.pages("/datasets", DatasetView)
        return {
            view.name: FileDataset(client=workspace.client, view=view)
            for view in views
            if view.name
        }


def _is_pair(path: object) -> bool:
    return isinstance(path, tuple) and len(path) == 2 and isinstance(path[0], Datastore)


def _from_urls(urls: list[str]) -> FileDataset:
    for each in urls:
        if not each.startswith(("http://", "https://")):
            raise UserError(
                f"path: {each[:200]!r} is neither a web address nor a datastore path. Upload local "
                "files with Dataset.File.upload_directory or Datastore.upload_files.",
                code="dataset.path",
                field="path",
            )
    return FileDataset(request=DatasetRequest(source=DatasetUrls(urls=tuple(urls))))


def _check_input_name(name: str) -> None:
    if not _INPUT_NAME.fullmatch(name):
        raise UserError(
            f"name: {name!r} cannot be an input's name; use letters, digits and '_', "
            "and no digit first",
            code="input.name",
            field="name",
        )
