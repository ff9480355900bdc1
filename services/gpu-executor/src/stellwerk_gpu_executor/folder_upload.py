"""Uploads the files below one folder, while a run fills it and at its end.

Content is hostile: only regular files, never through a link, opened once; anything else is
skipped and reported.
"""

import asyncio
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from stellwerk.errors import ProtocolError
from stellwerk.manifest import ManifestEntry, safe_path
from stellwerk_kit.beneath import open_beneath
from stellwerk_kit.objects import ObjectStore

MAX_FILES = 100_000
TRIES = 3
PARALLEL = 16


@dataclass(frozen=True, slots=True)
class _Uploaded:
    size: int
    mtime_ns: int
    sha256: str


class FolderUpload:
    """The files below ``root``, named relative to ``base``; ``skipped``: name → why not.

    ``top``: the attempt's folder. Of what lies below it the run may make a link at any time.
    """

    def __init__(self, objects: ObjectStore, top: Path, root: Path, base: Path) -> None:
        self._objects, self._top, self._root, self._base = objects, top, root, base
        self._done: dict[str, _Uploaded] = {}
        self.skipped: dict[str, str] = {}

    async def upload(self, *, only_before: float | None = None) -> dict[str, ManifestEntry]:
        """Upload what is new, and return all that is uploaded, by name.

        With ``only_before`` files changed after that time (seconds since the epoch) wait.
        """
        paths = self._scan()
        gate = asyncio.Semaphore(PARALLEL)

        async def one(path: Path) -> None:
            async with gate:
                await self._upload(path, only_before)

        await asyncio.gather(*(one(path) for path in paths))
        entries = {}
        for path in paths:
            name = self._name(path)
            done = self._done.get(name)
            if done is not None and name not in self.skipped:
                entries[name] = ManifestEntry(path=name, size=done.size, sha256=done.sha256)
        return entries

    def _name(self, path: Path) -> str:
        return path.relative_to(self._base).as_posix()

    def _scan(self) -> list[Path]:
        """Files below the folder in order; what cannot be taken is noted."""
        found: list[Path] = []
        if self._root.is_symlink():
            self.skipped[self._root.name] = "is a symbolic link"
            return []
        for folder, folders, files in os.walk(self._root):
            folders.sort()
            for name in [*folders, *sorted(files)]:
                path = Path(folder, name)
                if reason := _unfit(path, self._base, folder=name in folders):
                    self.skipped[self._name(path).encode(errors="replace").decode()] = reason
                elif name not in folders:
                    found.append(path)
            if len(found) > MAX_FILES:
                self.skipped[self._root.name] = (
                    f"more than {MAX_FILES} files; the rest was left out"
                )
                return found[:MAX_FILES]
        return found

    async def _upload(self, path: Path, only_before: float | None) -> None:
        name = self._name(path)
        for attempt in range(TRIES):
            try:
                file = open_beneath(self._top, path)
                status = os.fstat(file.descriptor)
                have = self._done.get(name)
                if have and (have.size, have.mtime_ns) == (status.st_size, status.st_mtime_ns):
                    return
                if only_before is not None and status.st_mtime > only_before:
                    return
                still = only_before is None  # asked for at the end: nobody is left to write
                digest, size = await self._objects.put_file(file, still=still)
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
            return


def _unfit(path: Path, base: Path, *, folder: bool) -> str | None:
    """Why a path cannot be an output, None if it can."""
    try:
        mode = path.lstat().st_mode
        safe_path(path.relative_to(base).as_posix())
        path.name.encode()
    except (OSError, ValueError) as error:
        return f"cannot be stored: {error}"[:200]
    if stat.S_ISLNK(mode):
        return "is a symbolic link"
    if not folder and not stat.S_ISREG(mode):
        return "is no regular file"
    return None
