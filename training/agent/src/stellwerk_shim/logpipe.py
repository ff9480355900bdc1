"""Copies the run's output from its pipe into std.log, with a limit and a running digest."""

from __future__ import annotations

import fcntl
import hashlib
import mmap
import os
import select
import time

PIPE_BYTES = 1 << 20
REST_S = 0.002
RETRY_S = 1.0
NEW = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
NOTHING = hashlib.sha256().hexdigest()


class LogPipe:
    """The read end of the run's stdout and stderr, and the file they go to.

    The file is made with the first output. `wants_input` says whether the pipe should be watched
    now; `deadline` when to ask again.
    At `limit` bytes the pipe is left full, so the run waits at its next print, unless `drop` is
    set: then the rest is counted and thrown away. A full disk also leaves the pipe full.
    """

    def __init__(self, path: str, limit: int, *, drop: bool) -> None:
        self.pipe, self.child_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.pipe, False)
        self._roomy = _enlarge(self.pipe)
        self._path, self._file = path, -1
        self._buffer: mmap.mmap | None = None
        self._unwritten = b""
        self._hash: hashlib._Hash | None = None
        self._limit = limit
        self._drop = drop
        self._at_line_start = True
        self.size = 0
        self.dropped = 0
        self.blocked = False
        self.ended = False
        self.deadline = float("inf")

    @property
    def wants_input(self) -> bool:
        """True when new output should be read as soon as it is there."""
        return not (self.ended or self.blocked or self.deadline < float("inf"))

    @property
    def digest(self) -> str:
        """SHA-256 of std.log so far, in hexadecimal."""
        return NOTHING if self._hash is None else self._hash.hexdigest()

    def copy(self, now: float) -> bool:
        """Move what the pipe holds into the file; True if the file grew.

        Afterwards the pipe rests for 2 ms: a script that prints line by line then costs 500 short
        wakes a second instead of one a line. The first line after silence is never delayed.
        """
        room = self._limit - self.size
        if room <= 0 and not self._drop:
            return self._block()
        if self._buffer is None:
            # Anonymous memory costs what is used of it; a bytearray is filled with zeros first.
            self._buffer = mmap.mmap(-1, PIPE_BYTES, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        try:
            view = memoryview(self._buffer)
            count = os.readv(self.pipe, [view[: min(room, PIPE_BYTES)] if room > 0 else view])
        except BlockingIOError:
            return False
        if count == 0:
            self.ended = True
            return False
        if self._roomy and count < PIPE_BYTES // 2:
            self.deadline = now + REST_S
        if room <= 0:
            self.dropped += count
            return False
        self._write(view[:count], now)
        return True

    def tick(self, now: float) -> bool:
        """End a rest; try again what a full disk refused. True if the file grew."""
        if now < self.deadline:
            return False
        self.deadline = float("inf")
        before = self.size
        pending, self._unwritten = self._unwritten, b""
        self._write(memoryview(pending), now)
        return self.size > before

    def drain(self, now: float, until: float) -> None:
        """Take what is left once all writers are gone; count what the limit keeps out.

        Ends at `until` if a process outside the run's reach still holds the pipe open.
        """
        self.tick(float("inf"))
        if self._unwritten:  # the disk is still full: what cannot be kept is counted
            self.dropped += len(self._unwritten)
            self._unwritten, self._limit = b"", self.size
        self.blocked, self._drop = False, True
        while not self.ended:
            if not self.copy(now) and not self.ended:
                select.select([self.pipe], [], [], until - now)
            now = time.monotonic()
            if now >= until:
                return

    def close(self) -> None:
        """Mark dropped bytes in the log and make it durable."""
        if self.dropped:
            self._note(f"{self.dropped} bytes dropped")
        try:
            if self.size:
                os.fsync(self._file)
        finally:
            if self._file >= 0:
                os.close(self._file)
            os.close(self.pipe)

    def _block(self) -> bool:
        self.blocked = True
        self._note(f"log limit of {self._limit} bytes reached; the run waits until it is stopped")
        return True

    def _note(self, text: str) -> None:
        start = "" if self._at_line_start else "\n"
        self._unwritten = b""
        self._write(memoryview(f"{start}[stellwerk: {text}]\n".encode()), 0.0)

    def _write(self, data: memoryview, now: float) -> None:
        while data:
            try:
                if self._file < 0:
                    self._file = os.open(self._path, NEW, 0o600)
                count = os.write(self._file, data)
            except OSError:
                # Disk full or over quota: keep the bytes, leave the pipe alone, ask again later.
                self._unwritten = bytes(data)
                self.deadline = now + RETRY_S
                return
            if self._hash is None:
                self._hash = hashlib.sha256()
            self._hash.update(data[:count])
            self.size += count
            self._at_line_start = data[count - 1] == 10
            data = data[count:]


def _enlarge(pipe: int) -> bool:
    """Ask for a 1 MiB pipe; False where the user's share of pipe memory is used up."""
    try:
        return fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES) >= PIPE_BYTES
    except OSError:
        return False
