"""Starts supervisor processes, detached; keeps one ready, so no run waits for an interpreter."""

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import stellwerk_shim

_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")


@dataclass(frozen=True, slots=True)
class _Spare:
    pid: int
    order: int
    """Write end of its stdin: one line starts it, closing it ends it, and so does our death."""


class Spawner:
    """At most one spare supervisor; a run that finds none gets a fresh one."""

    def __init__(self) -> None:
        self._spare: _Spare | None = None

    def prepare(self) -> None:
        """Make sure that a spare is there for the next run."""
        if self._spare is None:
            read, write = os.pipe()
            pid = _spawn("-", [(os.POSIX_SPAWN_DUP2, read, 0)])
            os.close(read)
            self._spare = _Spare(pid, write)

    def spawn(self, folder: Path) -> int:
        """Start a supervisor for `folder`; returns its process id, a child of this process."""
        spare, self._spare = self._spare, None
        if spare is None:
            return _spawn(str(folder), [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)])
        try:
            os.write(spare.order, os.fsencode(folder) + b"\n")
        except BrokenPipeError:
            os.waitpid(spare.pid, 0)
            return self.spawn(folder)
        finally:
            os.close(spare.order)
        return spare.pid

    def close(self) -> None:
        """End the spare."""
        if self._spare is not None:
            os.close(self._spare.order)
            os.waitpid(self._spare.pid, 0)
            self._spare = None


def _spawn(argument: str, stdin: list[tuple[int, ...] | tuple[int, int, str, int, int]]) -> int:
    """Start the supervisor in its own session, with no environment and no descriptor of ours."""
    # The interpreter may need the first to load at all; the second spares it a search for a locale.
    env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    return os.posix_spawn(
        sys.executable,
        [sys.executable, "-I", "-S", str(_ENTRY), argument],
        env | {"LC_CTYPE": "C.UTF-8"},
        file_actions=[*stdin, *quiet],
        setsid=True,
        setsigmask=[],
    )
