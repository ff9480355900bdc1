"""Datastores: where uploaded files get a path, so that datasets can be made of them."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stellwerk.api import DatastoreUploadRequest, DatastoreUploadView
from stellwerk.client import Client, segment
from stellwerk.errors import UserError
from stellwerk.localfiles import LocalFile, hashed, local_file, manifest_of, tree
from stellwerk.uploads import upload

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

DEFAULT_DATASTORE = "workspaceblobstore"


@dataclass(frozen=True, slots=True)
class DataPath:
    """A file, folder or glob of a datastore."""

    datastore: "Datastore"
    path: str


class Datastore:
    """A named store of files. ``name`` None means the workspace's default one."""

    def __init__(self, workspace: "Workspace", name: str | None = None) -> None:
        self.workspace = workspace
        self.name = name or DEFAULT_DATASTORE

    def __repr__(self) -> str:
        return f"Datastore(name={self.name!r})"

    @classmethod
    def get(cls, workspace: "Workspace", datastore_name: str) -> "Datastore":
        """The datastore of this name."""
        return cls(workspace, datastore_name)

    @classmethod
    def get_default(cls, workspace: "Workspace") -> "Datastore":
        """The datastore that every workspace has."""
        return cls(workspace)

    @property
    def client(self) -> Client:
        """The workspace's client."""
        return self.workspace.client

    def path(self, path: str | None = None) -> DataPath:
        """A place in this datastore; None is all of it."""
        return DataPath(self, path or "**")

    def upload_files(
        self,
        files: Sequence[str],
        relative_root: str | None = None,
        target_path: str | None = None,
        overwrite: bool = False,
        show_progress: bool = True,
    ) -> DataPath:
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
    ) -> DataPath:
        """Upload a folder; ``pattern`` is a glob that file names must match."""
        found = tree(Path(src_dir), pattern)
        if not found:
            raise UserError(f"src_dir: there is no file to upload in {src_dir}", field="src_dir")
        return self._upload(found, target_path, overwrite=overwrite, show=show_progress)

    def _upload(
        self, files: Iterable[LocalFile], target_path: str | None, *, overwrite: bool, show: bool
    ) -> DataPath:
        prefix = (target_path or "").strip("/")
        placed = hashed(
            LocalFile(each.path, f"{prefix}/{each.name}" if prefix else each.name, each.size)
            for each in files
        )
        if show:
            sys.stdout.write(f"Uploading an estimated of {len(placed)} files\n")
        upload(self.client, placed, label=f"Upload to {self.name}", show=show)
        entries = manifest_of(placed).entries
        self.client.call(
            "POST",
            f"/datastores/{segment(self.name)}/files",
            DatastoreUploadView,
            body=DatastoreUploadRequest(entries=entries, overwrite=overwrite),
        )
        if show:
            sys.stdout.write(f"Uploaded {len(placed)} files\n")
        return DataPath(self, prefix or "**")


def _common_folder(paths: Sequence[Path]) -> Path:
    common = paths[0].parent
    while not all(each.is_relative_to(common) for each in paths):
        common = common.parent
    return common
