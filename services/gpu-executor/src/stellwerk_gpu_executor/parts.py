"""Large blobs piece by piece: what a mounted dataset is read from before all of it is here.

A blob is fetched in pieces when they are first read; the next ones are fetched ahead. When the last
has come, the whole is verified and becomes a file of the node cache.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from stellwerk.errors import ProtocolError
from stellwerk.manifest import Manifest
from stellwerk_gpu_executor.cache import BlobCache
from stellwerk_kit.objects import ObjectStore, hash_file
from stellwerk_kit.tasks import TaskOwner

PIECE = 4 * 1024 * 1024
AHEAD = 4
"""Pieces fetched before they are asked for, once reading goes forward."""
WHOLE = 32 * 1024 * 1024
"""Up to this size a blob is fetched and verified before the first byte of it is read."""

log = structlog.get_logger()


@dataclass
class _Partial:
    path: Path
    size: int
    pieces: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    finishing: asyncio.Task[None] | None = None


class Parts:
    """Blobs that are only partly here, under ``folder``."""

    def __init__(
        self, objects: ObjectStore, cache: BlobCache, folder: Path, tasks: TaskOwner
    ) -> None:
        self._tasks = tasks
        self._objects, self._cache, self._folder = objects, cache, folder
        self._partial: dict[str, _Partial] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():  # which pieces these had is not known any more
            left.unlink()

    async def ready(self, digest: str, size: int, start: int, stop: int) -> tuple[Path, int]:
        """A file that has the bytes from ``start`` to the second value, at most to ``stop``.

        Raises NotFoundError, ProtocolError, ServiceUnavailableError.
        """
        path = self._cache.find(digest, size)
        if path is not None:
            return path, stop
        if size <= WHOLE:
            path, _ = await self._cache.get(digest, size)
            return path, stop
        partial = self._partial.setdefault(digest, _Partial(self._folder / digest, size))
        first = start // PIECE
        for number in range(first, min(first + 1 + AHEAD, -(-size // PIECE))):
            self._begin(digest, partial, number)
        await asyncio.shield(partial.pieces[first])
        if partial.finishing is not None:  # a wrong blob is told as soon as it is known
            with suppress(asyncio.CancelledError):
                if partial.finishing.done():
                    partial.finishing.result()
        return partial.path, min(stop, (first + 1) * PIECE)

    def ahead(self, manifest: Manifest) -> None:
        """Begin to fetch all of a dataset that is small, while the run's interpreter starts."""
        if manifest.size <= WHOLE:
            for entry in manifest.entries:
                self._tasks.spawn_quiet(self._cache.get(entry.sha256, entry.size), "ahead")

    def trim(self, limit: int) -> None:
        """Forget what was begun and is not complete, if it takes more than ``limit`` bytes."""
        sizes = {digest: len(each.pieces) * PIECE for digest, each in self._partial.items()}
        for digest, partial in list(self._partial.items()):
            if sum(sizes.values()) <= limit:
                return
            if all(task.done() for task in partial.pieces.values()) and not partial.finishing:
                del self._partial[digest], sizes[digest]
                partial.path.unlink(missing_ok=True)

    def _begin(self, digest: str, partial: _Partial, number: int) -> None:
        task = partial.pieces.get(number)
        if task is None or (task.done() and task.exception() is not None):
            partial.pieces[number] = self._tasks.spawn_quiet(
                self._fetch(digest, partial, number), "piece"
            )

    async def _fetch(self, digest: str, partial: _Partial, number: int) -> None:
        start = number * PIECE
        length = min(PIECE, partial.size - start)
        try:
            await self._objects.fetch_range(digest, partial.path, start, length)
        except Exception:
            log.warning("piece not fetched", action="piece_failed", digest=digest, piece=number)
            raise
        others = [task for key, task in partial.pieces.items() if key != number]
        complete = len(others) + 1 == -(-partial.size // PIECE)
        if complete and all(task.done() and task.exception() is None for task in others):
            partial.finishing = self._tasks.spawn_quiet(self._finish(digest, partial), "blob")

    async def _finish(self, digest: str, partial: _Partial) -> None:
        actual, _ = await asyncio.to_thread(hash_file, partial.path)
        if actual != digest:
            log.error("corrupt blob", action="blob_corrupt", digest=digest)
            partial.path.unlink(missing_ok=True)
            raise ProtocolError(f"blob {digest[:12]} is corrupt in the object store")
        self._cache.adopt(digest, partial.path)
        self._partial.pop(digest, None)
