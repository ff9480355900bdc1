"""Log files on the disk: one for each owner, attempt and stream, appended to by offset.

Synchronous and meant for one thread at a time. What lies beyond the committed length is left of
a crash and cut off when the file is opened again.
"""

import hashlib
import os
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path

from stellwerk_history.closing import LogKey

MAX_OPEN = 256
BLOCK = 1024 * 1024


class OpenLog:
    """One log file open for appending. ``size`` counts its bytes, ``dirty`` those not synced."""

    def __init__(self, path: Path, committed: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        there = os.fstat(self._file).st_size
        self.size = min(there, committed)
        self.dirty = self._new = there == 0
        if there > self.size:
            os.ftruncate(self._file, self.size)
        os.lseek(self._file, self.size, os.SEEK_SET)
        self._hash = hashlib.sha256() if self.size == 0 else None

    def append(self, offset: int, data: bytes) -> bool:
        """Add what is new of ``data``; False when something before it is missing."""
        if offset > self.size:
            return False
        fresh = memoryview(data)[self.size - offset :]
        if len(fresh):
            self.dirty = True
            self._write(fresh)
            if self._hash is not None:
                self._hash.update(fresh)
            self.size += len(fresh)
        return True

    def sync(self) -> None:
        """Make everything durable, the file's own entry in its folder too."""
        if not self.dirty:
            return
        os.fdatasync(self._file)
        if self._new:
            _sync_folder(self.path.parent)
        self.dirty = self._new = False

    def sha256(self, size: int) -> str | None:
        """Digest of the first ``size`` bytes where it is known without reading them."""
        return self._hash.hexdigest() if self._hash is not None and size == self.size else None

    def close(self) -> None:
        """Sync and close."""
        self.sync()
        os.close(self._file)

    def _write(self, data: memoryview) -> None:
        """All of ``data`` or nothing: a full disk must not leave half a chunk counted."""
        written = 0
        try:
            while written < len(data):
                written += os.write(self._file, data[written:])
        except OSError:
            os.ftruncate(self._file, self.size)
            os.lseek(self._file, self.size, os.SEEK_SET)
            raise


class LogFiles:
    """All log files below ``root``; at most 256 are open."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._open: OrderedDict[LogKey, OpenLog] = OrderedDict()

    def path(self, key: LogKey) -> Path:
        """Where a log lies."""
        return self._root / key.owner[:2] / key.owner / str(key.attempt) / key.stream

    def opened(self, key: LogKey, committed: int) -> OpenLog:
        """The file, opened if need be with its committed length."""
        file = self._open.get(key)
        if file is None:
            if len(self._open) >= MAX_OPEN:
                self._open.popitem(last=False)[1].close()
            file = self._open[key] = OpenLog(self.path(key), committed)
        self._open.move_to_end(key)
        return file

    def sync(self) -> None:
        """Make everything that was appended durable."""
        for file in self._open.values():
            file.sync()

    def release(self, key: LogKey) -> None:
        """Close a log that will not grow."""
        file = self._open.pop(key, None)
        if file is not None:
            file.close()

    def remove(self, key: LogKey) -> None:
        """Delete a file that is in the object store."""
        self.release(key)
        path = self.path(key)
        path.unlink(missing_ok=True)
        for folder in (path.parent, path.parent.parent):
            with suppress(OSError):  # another log's file is there, maybe just fetched
                folder.rmdir()

    def digest(self, key: LogKey, size: int) -> str:
        """SHA-256 of the first ``size`` bytes; the file is read where it must be."""
        return self.known_digest(key, size) or hash_prefix(self.path(key), size)

    def known_digest(self, key: LogKey, size: int) -> str | None:
        """The same where the file need not be read, None where it must be."""
        file = self._open.get(key)
        return file.sha256(size) if file is not None else None

    def close(self) -> None:
        """Close everything."""
        while self._open:
            self._open.popitem()[1].close()


def hash_prefix(path: Path, size: int) -> str:
    """SHA-256 of the first ``size`` bytes of a file, of fewer where it is shorter."""
    digest = hashlib.sha256()
    if size:
        with path.open("rb", buffering=0) as file:
            while size > 0 and (block := file.read(min(BLOCK, size))):
                digest.update(block)
                size -= len(block)
    return digest.hexdigest()


def read_piece(path: Path, offset: int, limit: int) -> bytes:
    """At most ``limit`` bytes of a file from ``offset``."""
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.pread(file, limit, offset)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
