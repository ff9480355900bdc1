"""A script that cannot go on in a fork begins again in a new interpreter, if nobody can tell.

That is while it has only imported, read and computed. Python's audit events name what goes beyond
that, also outside of the run's folders: a folder made, a file renamed, a connection, a child. What
has no event is seen as bytes written, a change in a folder of the run's, a thread, something open,
or as other limits and rights than it began with.
"""

from __future__ import annotations

import os
import sys
import time

from stellwerk_shim import marks, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

PYTHON_IGNORES = (signals.PIPE, signals.XFSZ)
OWN_FOLDERS = ("HOME", "TMPDIR", "STELLWERK_UPLOADS_DIR")
"""Variables that name folders of the run's, besides the working folder."""
TO_WRITE = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
HARMLESS = frozenset(
    "_thread.start_new_thread array.__new__ builtins.id code.__new__ compile exec function.__new__"
    " gc.get_objects gc.get_referents gc.get_referrers glob.glob glob.glob/2 import marshal.dumps"
    " marshal.load marshal.loads mmap.__new__ object.__delattr__ object.__getattr__"
    " object.__setattr__ os.chdir os.fwalk os.getxattr os.listdir os.listxattr os.putenv os.scandir"
    " os.unsetenv os.walk pathlib.Path.glob pathlib.Path.rglob pickle.find_class"
    " socket.__new__ socket.getaddrinfo socket.gethostbyname socket.gethostname sys._current_frames"
    " sys._getframe sys.addaudithook sys.excepthook sys.setprofile sys.settrace sys.unraisablehook"
    " time.sleep ctypes.dlopen".split()
)
"""Audit events of what may happen twice without a difference."""


class Beginning:
    """What this process was when its script began, `env` its environment.

    Until `over`, imports write no bytecode: in the run's own folder it would look like its work.
    """

    def __init__(self, env: dict[str, str]) -> None:
        self._env, self._pid, self._folder = env, os.getpid(), os.getcwd()
        attempt = os.path.dirname(env.get("STELLWERK_RUN_SOCKET", "")) + "/"
        own = [
            env[name]
            for name in OWN_FOLDERS
            if env.get(name, "").startswith(attempt) and os.path.isdir(env[name])
        ]
        self._folders = {folder: os.stat(folder).st_ctime_ns for folder in [self._folder, *own]}
        self._bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        self._moment = time.time_ns()
        self._acted = False
        self._state = _state()
        sys.addaudithook(self._audit)  # for good: none can be taken away

    def over(self) -> None:
        """The script has got what it could not have got otherwise."""
        sys.dont_write_bytecode = self._bytecode
        self._acted = True

    def _audit(self, event: str, arguments: tuple[object, ...]) -> None:
        if self._acted or event in HARMLESS or marks.TELLING:
            return
        if event == "open":
            self._acted = bool(arguments[2] & TO_WRITE)  # type: ignore[operator]
        else:  # urllib3 looks at its import whether it can bind to a port: nobody gets to know it
            self._acted = event != "socket.bind" or str(arguments[1]) != "('::1', 0)"

    def again(self, why: str) -> None:
        """Begin again and tell `why`. Returns where that would not be as if it had just begun."""
        if self._acted or os.getpid() != self._pid:
            return
        if self._state is None or _state() != self._state:
            return
        for folder, then in self._folders.items():
            if os.stat(folder).st_ctime_ns != then or _changed(folder, self._moment):
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


def _state() -> tuple[object, ...] | None:
    """Bytes written, threads, open descriptors, limits, rights. None with a living child."""
    try:
        with open("/proc/self/io") as counters:
            (written,) = [int(line.split()[1]) for line in counters if line.startswith("wchar")]
        threads, opened = os.listdir("/proc/self/task"), os.listdir("/proc/self/fd")
        for thread in threads:
            with open(f"/proc/self/task/{thread}/children") as children:
                if children.read().strip():
                    return None
        with open("/proc/self/limits") as limits:
            allowed = (limits.read(), os.nice(0), os.sched_getaffinity(0))
    except (OSError, ValueError):
        return None  # a kernel that does not count
    rights = (os.getresuid(), os.getresgid(), os.getgroups())
    return written, len(threads), len(opened), allowed, rights


def _changed(folder: str, since_ns: int) -> bool:
    """Whether anything below `folder` was made, moved or written after that moment.

    Times of files may lag by a tick: what is laid out just before never looks later, and what a
    script does in its first milliseconds has an event.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                if _changed(entry.path, since_ns):
                    return True
            if entry.stat(follow_symlinks=False).st_ctime_ns > since_ns:
                return True
    return False
