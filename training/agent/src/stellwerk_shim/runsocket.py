"""The run's own socket: takes JSON lines from its processes and appends them to records.jsonl.

Records are opaque here. A line longer than 256 KiB, a line that is not an object in braces, and
what follows the last newline of a connection are dropped; a record of kind `dropped` says so.
"""

from __future__ import annotations

import json
import os
import socket
import time

LINE_BYTES = 256 * 1024
CONNECTIONS = 256
READ_BYTES = 256 * 1024
RETRY_S = 1.0
NEW = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC


class RunSocket:
    """Listener, connections and the record file, which is made with the first record.

    `selectable` yields the sockets to watch. `deadline` is set while the disk refuses records;
    then nothing is read, so the run's processes wait at their next record.
    """

    def __init__(self, folder: str, limit: int) -> None:
        self._listener = _listen(folder)
        self._folder, self._file = folder, -1
        self._partial: dict[socket.socket, bytes] = {}
        self._overlong: set[socket.socket] = set()
        self._unwritten = b""
        self._limit = limit
        self._full = False
        self.size = 0
        self.deadline = float("inf")

    @property
    def selectable(self) -> list[socket.socket]:
        """Sockets whose input is wanted now."""
        if self._unwritten:
            return []
        listener = [self._listener] if len(self._partial) < CONNECTIONS else []
        return [*listener, *self._partial]

    def handle(self, ready: socket.socket, now: float) -> bool:
        """Accept from the listener or read from a connection; True if records.jsonl grew."""
        if ready is self._listener:
            self._accept()
            return False
        try:
            data = ready.recv(READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            return self._close(ready, now)
        return self._take(ready, data, now)

    def tick(self, now: float) -> bool:
        """Try again what a full disk refused; True if records.jsonl grew."""
        if now < self.deadline:
            return False
        self.deadline = float("inf")
        before = self.size
        pending, self._unwritten = self._unwritten, b""
        self._write(pending, now)
        return self.size > before

    def drain(self, now: float, until: float) -> None:
        """Take what was sent before the processes ended, connections not yet accepted included."""
        self.tick(float("inf"))
        while (self._accept() or self._partial) and time.monotonic() < until:
            for connection in list(self._partial):
                try:
                    while (data := connection.recv(READ_BYTES)) and time.monotonic() < until:
                        self._take(connection, data, now)
                except OSError:
                    pass  # nothing more to come, or a peer that outlived the run
                self._close(connection, now)

    def close(self) -> None:
        """Make the records durable and remove the socket."""
        self._listener.close()
        os.unlink(self._folder + "/run.sock")
        if self._file >= 0:
            try:
                os.fsync(self._file)
            finally:
                os.close(self._file)

    def warn(self, now: float, **fields: object) -> None:
        """Append a record of the supervisor's own."""
        self._append(json.dumps({**fields, "ts": time.time()}).encode() + b"\n", now)

    def _accept(self) -> bool:
        accepted = False
        while len(self._partial) < CONNECTIONS:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                break
            connection.setblocking(False)
            self._partial[connection] = b""
            accepted = True
        return accepted

    def _take(self, source: socket.socket, data: bytes, now: float) -> bool:
        lines = (self._partial[source] + data).split(b"\n")
        self._partial[source] = lines.pop()
        if source in self._overlong and lines:
            del lines[0]  # the tail of the line that was reported when it grew too long
            self._overlong.discard(source)
        good = [line for line in lines if _is_record(line)]
        if len(good) < len(lines):
            self._refuse(len(lines) - len(good), now)
        if len(self._partial[source]) > LINE_BYTES:
            if source not in self._overlong:
                self._overlong.add(source)
                self._refuse(1, now)
            self._partial[source] = b""
        if good:
            self._append(b"\n".join(good) + b"\n", now)
        return bool(lines)

    def _close(self, connection: socket.socket, now: float) -> bool:
        rest = self._partial.pop(connection)
        if rest and connection not in self._overlong:
            self._refuse(1, now)
        self._overlong.discard(connection)
        connection.close()
        return bool(rest)

    def _refuse(self, count: int, now: float) -> None:
        why = f"not a whole JSON object of at most {LINE_BYTES} bytes on one line"
        self.warn(now, k="dropped", by="shim", records=count, why=why)

    def _append(self, data: bytes, now: float) -> None:
        if self._full:
            return
        if self.size + len(data) > self._limit:
            self._full = True
            note = {
                "k": "dropped",
                "by": "shim",
                "why": f"more than {self._limit} bytes of records",
            }
            data = json.dumps(note).encode() + b"\n"
        self._write(data, now)

    def _write(self, data: bytes, now: float) -> None:
        while data:
            try:
                if self._file < 0:
                    self._file = os.open(self._folder + "/records.jsonl", NEW, 0o600)
                count = os.write(self._file, data)
            except OSError:
                self._unwritten += data
                self.deadline = now + RETRY_S
                return
            self.size += count
            data = data[count:]


def _is_record(line: bytes) -> bool:
    return len(line) <= LINE_BYTES and line.startswith(b"{") and line.endswith(b"}")


def _listen(folder: str) -> socket.socket:
    """Bind run.sock through the folder's descriptor: a socket address holds only 108 bytes."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    descriptor = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    before = os.umask(0o177)
    try:
        listener.bind(f"/proc/self/fd/{descriptor}/run.sock")
    finally:
        os.umask(before)
        os.close(descriptor)
    listener.listen(CONNECTIONS)
    listener.setblocking(False)
    return listener
