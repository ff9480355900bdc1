"""Wakes the executor: one datagram with the attempt's key, never waiting for anybody."""

from __future__ import annotations

import os
import socket

RETRY_S = 0.02


class Notifier:
    """Sends the key to the executor's datagram socket.

    A full queue is tried again every 20 ms, or the executor would sleep over the last line of a
    quiet run. An absent executor is not: it reads the files when it comes back.
    """

    def __init__(self, path: str, key: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        folder, self._name = os.path.split(path)
        # Through the folder's descriptor the 108 byte limit of a socket address never matters.
        self._folder = -1
        if folder:
            try:
                self._folder = os.open(folder, os.O_PATH | os.O_DIRECTORY)
            except OSError:
                self._folder = -1
        self._key = key.encode()
        self.deadline = float("inf")

    def send(self, now: float) -> None:
        """Send now; if the queue is full, `deadline` says when `tick` wants to be called."""
        self.deadline = float("inf")
        try:
            self._socket.sendto(self._key, f"/proc/self/fd/{self._folder}/{self._name}")
        except BlockingIOError:
            self.deadline = now + RETRY_S
        except OSError:
            return

    def tick(self, now: float) -> None:
        """Try a postponed datagram again."""
        if now >= self.deadline:
            self.send(now)
