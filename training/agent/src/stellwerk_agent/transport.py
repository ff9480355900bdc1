"""The connection to the run's socket: one line, one send, nothing kept back.

A record is in the kernel's hands when `send` returns, so a process killed right after loses
nothing. Trouble never reaches the training script: it is told once on stderr, and records are
dropped. A stuck reader costs at most 5 s, after that at most 1 s a minute.
"""

import os
import socket
import struct
import sys
import threading
import time

from stellwerk_agent import protocol

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import List, Optional

FIRST_WAIT_S = 5
LATER_WAIT_S = 1
PAUSE_S = 60.0


class Transport(object):
    """Safe for threads, signal handlers and forks: a forked child opens its own connection."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: "Optional[socket.socket]" = None
        self._behind: "List[bytes]" = []
        self._busy = False
        self._dropped = 0
        self._warned = False
        self._reset()

    def send(self, record: bytes) -> bool:
        """Send one line, newline included. False if it was dropped; never raises OSError."""
        if len(record) > protocol.LINE_BYTES + 1:
            self._warn(
                "a record of %d bytes is too long (limit %d)" % (len(record), protocol.LINE_BYTES)
            )
            return False
        if os.getpid() != self._pid:
            self._close()  # the parent's connection: only this process's hold on it ends
            self._reset()
        with self._lock:
            if self._busy:
                # A signal handler interrupted a send of this thread: its line must stay whole.
                self._behind.append(record)
                return True
            self._busy = True
            try:
                sent = self._send(record)
                while self._behind:
                    self._send(self._behind.pop(0))
                return sent
            finally:
                self._busy = False

    def _reset(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._busy = False
        self._behind = []
        self._wait_s = FIRST_WAIT_S
        self._closed_until = 0.0

    def _send(self, record: bytes) -> bool:
        if self._closed_until and time.monotonic() < self._closed_until:
            self._dropped += 1
            return False
        for _ in range(2):  # once more on a new connection, should the old one be broken
            try:
                if self._socket is None:
                    self._socket = self._connect()
                self._socket.sendall(record)
                self._closed_until = 0.0
                return True
            except BlockingIOError as error:
                self._give_up(error)
                break
            except OSError as error:
                self._close()
                failure = error
        else:
            self._give_up(failure)
        self._dropped += 1
        return False

    def _connect(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        folder, name = os.path.split(self._path)
        descriptor = -1
        try:
            # In the kernel, not as settimeout: that would cost a second system call a record.
            wait = struct.pack("@ll", self._wait_s, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, wait)
            # Through the folder's descriptor: a socket address holds only 108 bytes.
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            connection.connect("/proc/self/fd/%d/%s" % (descriptor, name))
            if self._dropped:
                why = "the run's socket could not be reached"
                gap = protocol.line("dropped", by="agent", records=self._dropped, why=why)
                connection.sendall(gap)
                self._dropped = 0
        except OSError:
            connection.close()
            raise
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        return connection

    def _give_up(self, error: OSError) -> None:
        self._close()
        self._wait_s = LATER_WAIT_S
        self._closed_until = time.monotonic() + PAUSE_S
        self._warn("cannot reach the run's supervisor (%s)" % (error.strerror or error))

    def _close(self) -> None:
        """Close; a line sent in part is dropped at the other end, which sees no newline."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _warn(self, text: str) -> None:
        if not self._warned:
            self._warned = True
            sys.stderr.write("stellwerk: %s; metrics are being dropped, training goes on\n" % text)
