"""A script that cannot go on in a fork begins again in a new interpreter, if nobody can tell.

That is while it has written nothing, has changed nothing in its folder, and has no thread, no child
and nothing open: a connection to its supervisor is, once it has logged a value. What it sent on
others and closed again is not seen: as in an attempt that is lost, it may happen twice.
"""

from __future__ import annotations

import os
import sys
import time

from stellwerk_shim import marks, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

COARSE = 5
"""CLOCK_REALTIME_COARSE, which the times of files are taken from."""
PYTHON_IGNORES = (signals.PIPE, signals.XFSZ)


class Beginning:
    """What this process was when its script began, `env` its environment.

    Until `over`, imports write no bytecode: in the run's own folder it would look like its work.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self._env, self._pid, self._folder = env, os.getpid(), os.getcwd()
        self._bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        self._moment = time.clock_gettime_ns(COARSE)
        self._state = _state()

    def over(self) -> None:
        """The script has got what it could not have got otherwise."""
        sys.dont_write_bytecode = self._bytecode

    def again(self, why: str) -> None:
        """Begin again and tell `why`. Returns where that would not be as if it had just begun."""
        if os.getpid() != self._pid or self._state is None or _state() != self._state:
            return
        if _changed(self._folder, self._moment):
            return
        marks.tell_cold(self._env.get("STELLWERK_RUN_SOCKET", ""), why)
        os.chdir(self._folder)
        try:
            become_python(self._env)
        except OSError:
            return  # the interpreter is not there any more: the import says what is wrong


def become_python(env: dict[str, str]) -> NoReturn:
    """Become a new interpreter that runs the same command."""
    signals.mask(signals.SETMASK, ())
    for number in PYTHON_IGNORES:
        signals.handle(number, signals.DEFAULT)
    os.execve(sys.orig_argv[0], sys.orig_argv, env)


def _state() -> tuple[int, int, int] | None:
    """Bytes written so far, children waited for included, threads and open descriptors.

    None with a living child.
    """
    try:
        with open("/proc/self/io") as counters:
            (written,) = [int(line.split()[1]) for line in counters if line.startswith("wchar")]
        threads, opened = os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")
        for thread in threads:
            with open(f"/proc/self/task/{thread}/children") as children:
                if children.read().strip():
                    return None
    except (OSError, ValueError):
        return None  # a kernel that does not count
    return written, len(threads), len(opened)


def _changed(folder: str, since_ns: int) -> bool:
    """Whether a file or folder in `folder`, or itself, was made, moved or written since then."""
    if os.stat(folder).st_ctime_ns >= since_ns:
        return True
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if _changed(entry.path, since_ns):
                    return True
            elif entry.stat(follow_symlinks=False).st_ctime_ns >= since_ns:
                return True
    return False
