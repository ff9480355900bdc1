"""Uploads what a run leaves: ``./outputs`` while it runs and at its end, files it gave explicitly.

Content is hostile: only regular files, never through a link, opened once; anything else is
skipped and reported.
"""

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from stellwerk.errors import ProtocolError
from stellwerk.manifest import Manifest, ManifestEntry, safe_path
from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_kit.clock import Clock
from stellwerk_kit.objects import ObjectStore

SETTLED_S = 5.0
MAX_FILES = 100_000
TRIES = 3
PARALLEL = 16

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class _Uploaded:
    size: int
    mtime_ns: int
    sha256: str


class Outputs:
    """The files of one attempt."""

    def __init__(self, objects: ObjectStore, folder: AttemptDir, work: Path, clock: Clock) -> None:
        self._objects, self._folder, self._work, self._clock = objects, folder, work, clock
        self._done: dict[str, _Uploaded] = {}
        self._given: dict[str, ManifestEntry] = {}
        self.skipped: dict[str, str] = {}

    async def upload_settled(self) -> list[ManifestEntry]:
        """Upload files under ``outputs`` that have not changed for 5 s; returns the new ones."""
        before = self._clock.now().timestamp() - SETTLED_S
        fresh = []
        for path in self._scan():
            entry = await self._upload(path, only_before=before)
            if entry is not None:
                fresh.append(entry)
        return fresh

    async def finish(self) -> tuple[str, tuple[str, ...]]:
        """Upload all the rest; returns the manifest's digest and what was skipped, with reasons."""
        entries: dict[str, ManifestEntry] = dict(self._given)
        paths = self._scan()
        gate = asyncio.Semaphore(PARALLEL)

        async def upload(path: Path) -> None:
            async with gate:
                await self._upload(path, only_before=None)

        await asyncio.gather(*(upload(path) for path in paths))
        for path in paths:
            name = path.relative_to(self._work).as_posix()
            done = self._done.get(name)
            if done is not None and name not in self.skipped:
                entries[name] = ManifestEntry(path=name, size=done.size, sha256=done.sha256)
        manifest = await self._objects.put_manifest(_without_clashes(entries, self.skipped))
        return manifest, tuple(f"{name}: {reason}" for name, reason in sorted(self.skipped.items()))

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
            if not stat.S_ISREG(path.lstat().st_mode):
                raise ProtocolError("not a regular file")
            digest, size = await self._objects.put_file(path)
        except (OSError, ValueError, ProtocolError) as error:
            self.skipped[str(name)[:200]] = str(error)[:200]
            return None
        self._given[name] = ManifestEntry(path=name, size=size, sha256=digest)
        return {**record, "n": record["n"], "f": name, "size": size, "sha256": digest}

    def _scan(self) -> list[Path]:
        """Files under ``outputs`` in order; what cannot be taken is noted."""
        found: list[Path] = []
        root = self._work / "outputs"
        if root.is_symlink():
            self.skipped["outputs"] = "is a symbolic link"
            return []
        for folder, folders, files in os.walk(root):
            folders.sort()
            for name in [*folders, *sorted(files)]:
                path = Path(folder, name)
                if reason := _unfit(path, self._work, folder=name in folders):
                    self.skipped[
                        path.relative_to(self._work).as_posix().encode(errors="replace").decode()
                    ] = reason
                elif name not in folders:
                    found.append(path)
            if len(found) > MAX_FILES:
                self.skipped["outputs"] = f"more than {MAX_FILES} files; the rest was left out"
                return found[:MAX_FILES]
        return found

    async def _upload(self, path: Path, *, only_before: float | None) -> ManifestEntry | None:
        name = path.relative_to(self._work).as_posix()
        for attempt in range(TRIES):
            try:
                status = path.lstat()
                if not stat.S_ISREG(status.st_mode):
                    self.skipped[name] = "no regular file any more"
                    return None
                have = self._done.get(name)
                if have and (have.size, have.mtime_ns) == (status.st_size, status.st_mtime_ns):
                    return None
                if only_before is not None and status.st_mtime > only_before:
                    return None
                digest, size = await self._objects.put_file(path)
            except (OSError, ProtocolError) as error:
                if attempt == TRIES - 1 or isinstance(error, FileNotFoundError):
                    self.skipped[name] = (
                        "changed while it was read"
                        if isinstance(error, ProtocolError)
                        else "cannot be read"
                    )
                continue
            self.skipped.pop(name, None)
            self._done[name] = _Uploaded(size, status.st_mtime_ns, digest)
            return ManifestEntry(path=name, size=size, sha256=digest)
        return None


def _unfit(path: Path, work: Path, *, folder: bool) -> str | None:
    """Why a path cannot be an output, None if it can."""
    try:
        mode = path.lstat().st_mode
        safe_path(path.relative_to(work).as_posix())
        path.name.encode()
    except (OSError, ValueError) as error:
        return f"cannot be stored: {error}"[:200]
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if not folder and not stat.S_ISREG(mode):
        return "is no regular file"
    return None


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
