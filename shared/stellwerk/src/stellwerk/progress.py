"""How far a long transfer is, for people: on stderr, never mixed with results.

On a terminal one line that is rewritten; elsewhere a plain line at the start, every few seconds
and at the end. Threads may report at the same time.
"""

import sys
import threading
import time
from types import TracebackType
from typing import Self, TextIO

from stellwerk.sizes import size_text

_TERMINAL_EVERY_S = 0.1
_PLAIN_EVERY_S = 5.0


class Progress:
    """Counts bytes and files of one transfer. ``show=False`` makes it silent."""

    def __init__(
        self, label: str, files: int, size: int, *, show: bool = True, out: TextIO | None = None
    ) -> None:
        self._label = label
        self._files, self._size = files, size
        self._done_files = self._done_bytes = 0
        self._out = out or sys.stderr
        self._show = show and files > 0
        self._terminal = self._out.isatty()
        self._lock = threading.Lock()
        self._began = self._shown = time.monotonic()

    def __enter__(self) -> Self:
        if self._show and not self._terminal:
            files = "1 file" if self._files == 1 else f"{self._files} files"
            self._plain(f"{self._label}: {files}, {size_text(self._size)}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if not self._show:
            return
        seconds = time.monotonic() - self._began
        ending = "done" if kind is None else "failed"
        text = f"{self._label}: {ending}, {self._state()} in {seconds:.1f} s"
        if self._terminal:
            self._out.write(f"\r\x1b[K{text}\n")
            self._out.flush()
        else:
            self._plain(text)

    def add(self, size: int) -> None:
        """Some bytes more were transferred (fewer, where a try has to begin anew)."""
        with self._lock:
            self._done_bytes += size
            self._refresh()

    def file_done(self) -> None:
        """One file more is complete."""
        with self._lock:
            self._done_files += 1
            self._refresh()

    def _refresh(self) -> None:
        now = time.monotonic()
        every = _TERMINAL_EVERY_S if self._terminal else _PLAIN_EVERY_S
        if not self._show or now - self._shown < every:
            return
        self._shown = now
        if self._terminal:
            self._out.write(f"\r\x1b[K{self._label}: {self._state()}")
            self._out.flush()
        else:
            self._plain(f"{self._label}: {self._state()}")

    def _state(self) -> str:
        done, size = size_text(self._done_bytes), size_text(self._size)
        return f"{self._done_files}/{self._files} files, {done}/{size}"

    def _plain(self, text: str) -> None:
        self._out.write(text + "\n")
        self._out.flush()
