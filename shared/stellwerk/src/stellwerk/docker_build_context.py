"""A folder, or an archive of one, that an image is built from, uploaded once."""

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
        """Upload a folder, or what an archive of it holds (.tar, .tar.gz, .tgz, .zip and others).

        ``.amlignore`` (or ``.gitignore``), ``.dockerignore`` leave out files. Raises UserError,
        also above 300 MB or 2,000 files, for a damaged or hostile archive, and for an address.
        """
        if "://" in path or path.startswith("git@"):
            raise UserError(
                f"path: got {path[:200]!r}; a build context is a folder or an archive here, not an "
                "address. Fetch it first (git clone, curl -O) and name what you have then.",
                code="env.build_context",
                field="path",
            )
        if not Path(path).is_file():
            return cls._upload(workspace, Path(path), path, dockerfile_path)
        from stellwerk.context_archive import unpacked  # noqa: PLC0415 - seldom needed

        with unpacked(Path(path)) as folder:
            return cls._upload(workspace, folder, path, dockerfile_path)

    @classmethod
    def _upload(
        cls, workspace: "Workspace", folder: Path, shown: str, dockerfile_path: str
    ) -> Self:
        if not Path(folder, dockerfile_path).is_file():
            hint = "".join(
                f"; it has {each.relative_to(folder).as_posix()!r}, and a build context is the "
                "folder that the Dockerfile copies from"
                for each in sorted(folder.glob(f"*/{DOCKERFILE}"))[:1]
            )
            raise UserError(
                f"dockerfile_path: {shown!r} has no file {dockerfile_path!r}{hint}",
                field="dockerfile_path",
            )
        snapshot = upload_snapshot(workspace.client, folder, shown=shown)
        return cls(snapshot.digest, dockerfile_path)

    @classmethod
    def of(cls, context: BuildContext | None) -> Self | None:
        """As a definition has it."""
        return None if context is None else cls(context.snapshot, context.dockerfile)

    def as_defined(self) -> BuildContext:
        """As a definition has it."""
        return BuildContext(snapshot=self.snapshot, dockerfile=self.dockerfile_path)
