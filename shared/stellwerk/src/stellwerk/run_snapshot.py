"""What a run was made from: its source snapshot and its environment."""

import tempfile
import zipfile
from pathlib import Path
from typing import Any

from stellwerk.answers import FileList
from stellwerk.client import file_path
from stellwerk.downloads import RemoteFile, download
from stellwerk.environment import Environment
from stellwerk.errors import NotFoundError, UserError
from stellwerk.run_base import RunBase
from stellwerk.runspec import EnvironmentReference, InlineSource, RunSpec, SnapshotSource


class Snapshots(RunBase):
    """``restore_snapshot``, ``get_snapshot_id`` and ``get_environment``."""

    def get_snapshot_id(self) -> str | None:
        """Digest of the source snapshot, None where the run has none."""
        source = self._spec().source
        return source.snapshot if isinstance(source, SnapshotSource) else None

    def restore_snapshot(self, snapshot_id: str | None = None, path: str | None = None) -> str:
        """Write the source as ``<id>.zip`` to the folder ``path`` (here); returns its path.

        A ``path`` that ends in ``.zip`` is the file itself. Raises NotFoundError without a source.
        """
        source = self._spec().source
        digest = snapshot_id or self.get_snapshot_id()
        if digest is None and not isinstance(source, InlineSource):
            raise NotFoundError(f"Run {self.id} has no source snapshot.", code="snapshot.missing")
        target = Path(path or ".")
        if target.suffix != ".zip":
            target /= f"{digest or self.id}.zip"
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory() as folder:
            if digest is not None:
                names = self._fetch(digest, Path(folder))
            else:
                names = _write(source, Path(folder))
            with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
                for name in names:
                    archive.write(Path(folder, name), name)
        return str(target)

    def get_environment(self) -> Environment:
        """The environment that the run used, in the version it used."""
        spec, image = self._spec(), self._view.image
        if spec.kind == "interactive":
            raise UserError("The run has no environment: a client drives it.", code="unsupported")
        if isinstance(spec.environment, EnvironmentReference):
            version = image.version if image is not None else spec.environment.version
            return Environment.get(self._workspace, spec.environment.name, version)
        name = spec.environment_name or "default-environment"
        return Environment._of(name, spec.environment)  # noqa: SLF001 - a definition without a home

    def _fetch(self, digest: str, folder: Path) -> list[str]:
        address = f"/snapshots/{digest}/files"
        listed = self._client.get(address, FileList).files
        download(
            self._client,
            [
                RemoteFile(f"{address}/{file_path(f.path)}", folder / f.path, f.size, f.sha256)
                for f in listed
            ],
            label="Source",
        )
        return [file.path for file in listed]

    def _spec(self) -> RunSpec:
        spec = self._view.spec or self.refresh().spec
        if spec is None:
            raise NotFoundError(f"Run {self.id} does not say what it was asked to do.")
        return spec


def _write(source: Any, folder: Path) -> list[str]:
    for name, text in source.inline.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return list(source.inline)
