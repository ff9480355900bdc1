"""A folder that an image is built from, uploaded once."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from stellwerk.environment_container import DOCKERFILE, BuildContext
from stellwerk.errors import UserError
from stellwerk.snapshot import upload_snapshot

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace


@dataclass(frozen=True)
class DockerBuildContext:
    """``snapshot`` is the digest of the uploaded folder, ``dockerfile_path`` lies within it."""

    snapshot: str
    dockerfile_path: str = DOCKERFILE

    @classmethod
    def from_local_directory(
        cls, workspace: "Workspace", path: str, dockerfile_path: str = DOCKERFILE
    ) -> Self:
        """Upload a folder; ``.amlignore`` (or ``.gitignore``), ``.dockerignore`` leave out files.

        Raises UserError, also where the folder is above 300 MB or has more than 2,000 files, and
        for an archive or an address: what is built from is always a folder of files.
        """
        if "://" in path or path.startswith("git@") or Path(path).is_file():
            archive = Path(path).name
            folder = archive.split(".")[0] or "context"
            raise UserError(
                f"path: got {path[:200]!r}; a build context is a folder here, not an archive or an "
                f"address. Fetch and unpack it first, for example mkdir {folder} && "
                f"tar -xf {archive} -C {folder} (or unzip, git clone), and name that folder.",
                code="env.build_context",
                field="path",
            )
        if not Path(path, dockerfile_path).is_file():
            raise UserError(
                f"dockerfile_path: {path!r} has no file {dockerfile_path!r}",
                field="dockerfile_path",
            )
        return cls(upload_snapshot(workspace.client, Path(path)).digest, dockerfile_path)

    @classmethod
    def of(cls, context: BuildContext | None) -> Self | None:
        """As a definition has it."""
        return None if context is None else cls(context.snapshot, context.dockerfile)

    def as_defined(self) -> BuildContext:
        """As a definition has it."""
        return BuildContext(snapshot=self.snapshot, dockerfile=self.dockerfile_path)
