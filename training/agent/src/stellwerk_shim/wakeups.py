"""Signals as something a selector can watch."""

from __future__ import annotations

import os
import select

from stellwerk_shim import signals

WATCHED = (signals.TERM, signals.HUP, signals.CHLD)


class Wakeups:
    """Collects signals.

    The pipe only wakes; the numbers are kept apart, so a flood of SIGCHLD that fills the pipe
    cannot lose a SIGTERM.
    """

    def __init__(self) -> None:
        self._read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._arrived: set[int] = set()
        signals.handle(signals.INT, signals.IGNORE)
        for number in WATCHED:
            signals.handle(number, lambda arrived, _frame: self._arrived.add(arrived))
        signals.wake_by(write, warn_on_full_buffer=False)

    def fileno(self) -> int:
        """Descriptor that is readable when signals arrived."""
        return self._read

    def take(self) -> set[int]:
        """Return the signals that arrived since the last call."""
        try:
            os.read(self._read, 65536)
        except BlockingIOError:
            pass
        # Swapped after the read: a signal in between is in the set and wakes once more, in vain.
        arrived, self._arrived = self._arrived, set()
        return arrived

    def wait(self, seconds: float) -> bool:
        """Wait for a signal; False if none came in time."""
        return bool(select.select([self._read], [], [], max(0.0, seconds))[0])
