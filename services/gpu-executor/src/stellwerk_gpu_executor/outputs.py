"""What a run leaves: ``./outputs``, files it gave explicitly, and the folders of its outputs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stellwerk.errors import ProtocolError
from stellwerk.events import StoredOutput
from stellwerk.manifest import Manifest, ManifestEntry, safe_path
from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.folder_upload import FolderUpload
from stellwerk_kit.beneath import open_beneath
from stellwerk_kit.clock import Clock
from stellwerk_kit.objects import ObjectStore

SETTLED_S = 5.0


class Outputs:
    """The files of one attempt. ``produced``: the folder of each output by name."""

    def __init__(
        self,
        objects: ObjectStore,
        folder: AttemptDir,
        work: Path,
        produced: Mapping[str, Path],
        clock: Clock,
    ) -> None:
        self._objects, self._folder, self._clock = objects, folder, clock
        self._own = FolderUpload(objects, folder.path, work / "outputs", work)
        self._produced = {
            name: FolderUpload(objects, folder.path, path, path) for name, path in produced.items()
        }
        self._given: dict[str, ManifestEntry] = {}

    async def upload_settled(self) -> None:
        """Upload files under ``outputs`` that have not changed for 5 s."""
        await self._own.upload(only_before=self._clock.now().timestamp() - SETTLED_S)

    async def finish(self) -> tuple[str, tuple[str, ...]]:
        """Upload all the rest; returns the manifest's digest and what was skipped, with reasons."""
        entries = {**self._given, **await self._own.upload()}
        skipped = self._own.skipped
        manifest = await self._objects.put_manifest(_without_clashes(entries, skipped))
        return manifest, _reasons(skipped)

    async def finish_produced(self) -> tuple[dict[str, StoredOutput], tuple[str, ...]]:
        """Upload the folders of the outputs; returns each one's manifest and what was skipped."""
        stored: dict[str, StoredOutput] = {}
        skipped: tuple[str, ...] = ()
        for name, upload in self._produced.items():
            manifest = _without_clashes(await upload.upload(), upload.skipped)
            digest = await self._objects.put_manifest(manifest)
            stored[name] = StoredOutput(
                manifest=digest, files=len(manifest.entries), bytes=manifest.size
            )
            skipped += tuple(f"output {name!r}: {each}" for each in _reasons(upload.skipped))
        return stored, skipped

    async def resolve(self, record: dict[str, Any]) -> dict[str, Any] | None:
        """Upload the file a record names; what is published names it by content."""
        kind = record.get("k")
        if kind not in {"file", "image", "artifact"}:
            return record
        source, name = record.get("p" if kind == "file" else "f"), record.get("n")
        if kind != "file":
            name = source
        if not isinstance(source, str) or not isinstance(name, str):
            return None
        try:
            name, path = safe_path(name), self._folder.uploads / safe_path(source)
            file = open_beneath(self._folder.path, path)
            digest, size = await self._objects.put_file(file)
        except (OSError, ValueError, ProtocolError) as error:
            changed = isinstance(error, ProtocolError) and error.code == "output.changed"
            reason = "changed while it was read" if changed else str(error)
            self._own.skipped[str(name)[:200]] = reason[:200]
            return None
        self._given[name] = ManifestEntry(path=name, size=size, sha256=digest)
        return {**record, "n": record["n"], "f": name, "size": size, "sha256": digest}


def _reasons(skipped: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(f"{name}: {reason}" for name, reason in sorted(skipped.items()))


def _without_clashes(entries: dict[str, ManifestEntry], skipped: dict[str, str]) -> Manifest:
    """A manifest of the entries, less any whose path is a folder of another."""
    folders = {parent for path in entries for parent in _parents(path)}
    for path in [path for path in entries if path in folders]:
        skipped[path] = "is a folder as well"
        del entries[path]
    return Manifest(entries=tuple(sorted(entries.values(), key=lambda entry: entry.path)))


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]
