"""The node cache: each blob is fetched once per machine, however many runs want it.

Files are read-only and carry a fixed modification time: one that was changed behind our back is
noticed by a stat and fetched anew.
"""

import asyncio
import os
import shutil
from pathlib import Path

import structlog

from stellwerk.manifest import ManifestEntry
from stellwerk_kit.objects import ObjectStore

EPOCH = (0, 0)

log = structlog.get_logger()


class BlobCache:
    """Blobs under ``folder/<first two>/<digest>``."""

    def __init__(self, objects: ObjectStore, folder: Path, limit_bytes: int) -> None:
        self._objects, self._folder, self._limit = objects, folder, limit_bytes
        self._fetching: dict[str, asyncio.Lock] = {}

    def find(self, digest: str, size: int) -> Path | None:
        """Path of a blob that is here, None if it is not."""
        path = self._folder / digest[:2] / digest
        if not _intact(path, size):
            return None
        os.utime(path.parent)
        return path

    def has(self, digest: str, size: int) -> bool:
        """Whether a blob is here."""
        return _intact(self._folder / digest[:2] / digest, size)

    def adopt(self, digest: str, file: Path) -> None:
        """Make a verified file, on the same file system, a blob of the cache."""
        path = self._folder / digest[:2] / digest
        path.parent.mkdir(parents=True, exist_ok=True)
        file.chmod(0o444)
        os.utime(file, EPOCH)
        file.rename(path)

    async def get(self, digest: str, size: int) -> tuple[Path, bool]:
        """Path of a blob and whether it was there already; concurrent callers share one fetch."""
        found = self.find(digest, size)
        if found is not None:
            return found, True
        path = self._folder / digest[:2] / digest
        lock = self._fetching.setdefault(digest, asyncio.Lock())
        async with lock:
            if _intact(path, size):
                return path, True
            try:
                await self._objects.fetch(digest, path, size)
                path.chmod(0o444)
                os.utime(path, EPOCH)
            finally:
                self._fetching.pop(digest, None)
        return path, False

    async def link(self, entry: ManifestEntry, target: Path) -> bool:
        """Make ``target`` a second name of the blob, read-only; True if it was cached."""
        source, cached = await self.get(entry.sha256, entry.size)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.hardlink_to(source)
        return cached

    async def copy(self, entry: ManifestEntry, target: Path) -> bool:
        """Write the blob to ``target`` as a file of its own; True if it was cached."""
        source, cached = await self.get(entry.sha256, entry.size)
        target.parent.mkdir(parents=True, exist_ok=True)
        await asyncio.to_thread(shutil.copyfile, source, target)
        target.chmod(0o755 if entry.executable else 0o644)
        return cached

    def evict(self) -> int:
        """Delete the folders used least recently until the limit holds; returns bytes freed.

        Files that a run has linked live on under their other name.
        """
        folders = sorted(
            (path for path in self._folder.glob("??") if path.is_dir()),
            key=lambda path: path.stat().st_mtime,
        )
        sizes = {
            folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders
        }
        total, freed = sum(sizes.values()), 0
        for folder in folders:
            if total - freed <= self._limit:
                break
            shutil.rmtree(folder, ignore_errors=True)
            freed += sizes[folder]
        if freed:
            log.info("node cache trimmed", action="cache_trimmed", freed_bytes=freed)
        return freed


def _intact(path: Path, size: int) -> bool:
    try:
        status = path.stat()
    except OSError:
        return False
    return status.st_size == size and status.st_mtime == 0
