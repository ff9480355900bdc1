"""Datastores: where uploaded files get a path, so that datasets can be made of them."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never

from stellwerk.api import DatasetFileView, DatastoreUploadRequest, DatastoreUploadView, Page
from stellwerk.client import Client, Params, file_path, segment
from stellwerk.datapath import DataPath, DataReference
from stellwerk.downloads import RemoteFile, download, inside
from stellwerk.errors import UserError
from stellwerk.localfiles import LocalFile, hashed, local_file, manifest_of, tree
from stellwerk.run_artifacts import ARTIFACT_STORE
from stellwerk.uploads import upload

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

__all__ = ["DEFAULT_DATASTORE", "DataPath", "DataReference", "Datastore"]

DEFAULT_DATASTORE = "workspaceblobstore"
PLACED_AT_ONCE = 1000


class Datastore:
    """A named store of files. ``name`` None means the workspace's default one.

    A new name becomes a datastore with the first file uploaded to it.
    """

    def __init__(self, workspace: "Workspace", name: str | None = None) -> None:
        self.workspace = workspace
        self.name = name or DEFAULT_DATASTORE

    def __repr__(self) -> str:
        return f"Datastore(name={self.name!r})"

    @classmethod
    def get(cls, workspace: "Workspace", datastore_name: str) -> "Datastore":
        """The datastore of this name. Raises NotFoundError where nothing was uploaded to it."""
        if datastore_name == ARTIFACT_STORE:
            return cls(workspace, datastore_name)
        path = f"/datastores/{segment(datastore_name)}/files"
        workspace.client.get(path, Page[DatasetFileView], {"limit": 1})
        return cls(workspace, datastore_name)

    @classmethod
    def get_default(cls, workspace: "Workspace") -> "Datastore":
        """The datastore that every workspace has."""
        return cls(workspace)

    @staticmethod
    def register_azure_blob_container(*_args: Any, **_kwargs: Any) -> Never:
        """Refuse: there is only the platform's own store."""
        raise UserError(
            "Stellwerk keeps data in its own store and registers no outside one. Copy the files "
            "with Datastore.upload_files() or name their web addresses in "
            "Dataset.File.from_files().",
            code="unsupported",
        )

    register_azure_file_share = register_azure_blob_container
    register_azure_data_lake = register_azure_blob_container
    register_azure_data_lake_gen2 = register_azure_blob_container
    register_azure_sql_database = register_azure_blob_container
    register_azure_postgre_sql = register_azure_blob_container
    register_azure_my_sql = register_azure_blob_container
    register_dbfs = register_azure_blob_container
    register_hdfs = register_azure_blob_container

    @property
    def client(self) -> Client:
        """The workspace's client."""
        return self.workspace.client

    @property
    def datastore_type(self) -> str:
        """What v1 calls a store of objects."""
        return "AzureBlob"

    @property
    def account_name(self) -> str:
        """Who keeps it: this platform."""
        return "stellwerk"

    @property
    def container_name(self) -> str:
        """The datastore's name once more."""
        return self.name

    @property
    def is_default(self) -> bool:
        """Whether this is the workspace's default datastore."""
        return self.name == DEFAULT_DATASTORE

    def path(
        self, path: str | None = None, data_reference_name: str | None = None
    ) -> DataReference:
        """A place in this datastore; None is all of it."""
        return DataReference(self, data_reference_name, path)

    def as_mount(self) -> DataReference:
        """All of it, for a run to see."""
        return self.path().as_mount()

    def as_download(self, path_on_compute: str | None = None) -> DataReference:
        """All of it, copied for a run."""
        return self.path().as_download(path_on_compute)

    def as_upload(self, path_on_compute: str | None = None) -> DataReference:
        """All of it, as a folder that a run fills."""
        return self.path().as_upload(path_on_compute)

    def upload_files(
        self,
        files: Sequence[str],
        relative_root: str | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> DataReference:
        """Upload single files. Their paths below ``target_path`` are relative to the root.

        ``relative_root`` None: the folder all files have in common. Raises UserError for a file
        that is missing, ConflictError where another file has the path and not ``overwrite``.
        """
        paths = [Path(each).absolute() for each in files]
        if not paths:
            raise UserError("files is empty; name at least one file", field="files")
        root = Path(relative_root).absolute() if relative_root else _common_folder(paths)
        found = []
        for each in paths:
            if not each.is_relative_to(root):
                raise UserError(f"relative_root: {each} is not below {root}", field="relative_root")
            found.append(local_file(each, each.relative_to(root).as_posix()))
        return self._upload(found, target_path, overwrite=overwrite, show=show_progress)

    def upload(
        self,
        src_dir: str,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
        pattern: str | None = None,
    ) -> DataReference:
        """Upload a folder; ``pattern`` is a glob that file names must match."""
        found = tree(Path(src_dir), pattern)
        if not found:
            raise UserError(f"src_dir: there is no file to upload in {src_dir}", field="src_dir")
        return self._upload(found, target_path, overwrite=overwrite, show=show_progress)

    def download(
        self,
        target_path: str,
        prefix: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> int:
        """Fetch the files whose path begins with ``prefix``, with their whole paths.

        Returns how many. Files that exist locally are left alone unless ``overwrite``.
        """
        base = f"/datastores/{segment(self.name)}/files"
        params: Params = {"prefix": (prefix or "").lstrip("/"), "limit": 1000}
        wanted = [
            RemoteFile(
                f"{base}/{file_path(each.path)}",
                inside(Path(target_path), each.path),
                each.size,
                each.sha256,
            )
            for each in self.client.pages(base, DatasetFileView, params)
        ]
        new = [each for each in wanted if overwrite or not each.target.exists()]
        return len(download(self.client, new, label=f"Download {self.name}", show=show_progress))

    def _upload(
        self, files: Iterable[LocalFile], target_path: str | None, *, overwrite: bool, show: bool
    ) -> DataReference:
        prefix = (target_path or "").strip("/")
        placed = hashed(
            LocalFile(each.path, f"{prefix}/{each.name}" if prefix else each.name, each.size)
            for each in files
        )
        if show:
            sys.stdout.write(f"Uploading an estimated of {len(placed)} files\n")
        upload(self.client, placed, label=f"Upload to {self.name}", show=show)
        entries = manifest_of(placed).entries
        for start in range(0, len(entries), PLACED_AT_ONCE):
            some = entries[start : start + PLACED_AT_ONCE]
            self.client.call(
                "POST",
                f"/datastores/{segment(self.name)}/files",
                DatastoreUploadView,
                body=DatastoreUploadRequest(entries=some, overwrite=overwrite),
            )
        if show:
            sys.stdout.write(f"Uploaded {len(placed)} files\n")
        return self.path(prefix)


def _common_folder(paths: Sequence[Path]) -> Path:
    common = paths[0].parent
    while not all(each.is_relative_to(common) for each in paths):
        common = common.parent
    return common
