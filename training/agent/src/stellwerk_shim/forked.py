"""Runs a script in a forked interpreter as a new one would have run it, and ends as it would.

Where CPython's own start and end are copied, the comments name the functions (CPython 3.11,
Modules/main.c, Python/pylifecycle.c, Objects/moduleobject.c). Two things differ by design: modules
that were loaded before the fork stay loaded, and they are not torn down at the end.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import importlib.machinery
import io
import os
import signal
import sys
import threading
import time
import types

from stellwerk_shim import marks

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

FLUSH_FAILED = 120
PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)


class Interpreter:
    """What of a freshly started interpreter must be remembered until a script runs in it.

    Made once, when everything is loaded; `home` is the value of HOME while it was loaded.
    """

    def __init__(self, home: str) -> None:
        self._loaded = set(sys.modules)
        self._homes = list(_strings_below(home))
        self._home = home

    def run(self, argv: list[str], env: dict[str, str], report: int) -> NoReturn:
        """Run `argv[1]` with the rest as its arguments; never returns.

        The process already has its working folder, session, limits and standard streams. `report`
        is closed the moment before the script begins.
        """
        status = 1
        try:
            self._forget_parent(env)
            main = _main_module(argv)
            os.close(report)
            status = _finish(_execute(main))
            status = self._tear_down(status)
        finally:
            os._exit(status)

    def _forget_parent(self, env: dict[str, str]) -> None:
        """Undo what this process knows of the one it was forked from."""
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in PYTHON_IGNORES:
            signal.signal(number, signal.SIG_IGN)
        os.environ.clear()
        os.environ.update(env)
        time.tzset()
        self._move_home(env.get("HOME", self._home))
        _forget(sys.modules)
        marks.begin()

    def _move_home(self, home: str) -> None:
        """Settings that modules derived from HOME when they were loaded follow it."""
        for module, name, rest in self._homes:
            setattr(module, name, home + rest)

    def _tear_down(self, status: int) -> int:
        """Let the script's own objects go, so that open files are written and finalizers run.

        A thread that is still there may use them: then only what is unwritten is written.
        """
        if threading.active_count() > 1:
            for stream in gc.get_objects():
                if isinstance(stream, (io.TextIOWrapper, io.BufferedWriter)):
                    _flush(stream)
            return status
        own = [name for name in sys.modules if name not in self._loaded and name != "__main__"]
        for name in ["__main__", *reversed(own)]:
            module = sys.modules.get(name)
            if isinstance(module, types.ModuleType):
                _clear(module)
        gc.collect()  # what was loaded before the fork is frozen and costs nothing here
        return status if _flushed() else FLUSH_FAILED


def _main_module(argv: list[str]) -> types.ModuleType:
    """A fresh `__main__` for the script, and sys.argv and sys.path[0] as main.c sets them."""
    path = os.path.abspath(argv[1])
    sys.argv = argv[1:]
    sys.orig_argv = list(argv)
    if not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        sys.path[0] = os.path.dirname(os.path.realpath(path))
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __builtins__=builtins,
        __file__=path,
        __cached__=None,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
        __annotations__={},
    )
    sys.modules["__main__"] = main
    return main


def _execute(main: types.ModuleType) -> int:
    """Run the script; the exit status, or minus SIGINT for an interrupt nobody caught."""
    try:
        exec(_code(str(main.__file__)), main.__dict__)
    except SystemExit as end:
        return _status(end.code)
    except BaseException as error:
        return _uncaught(error)
    return 0


def _code(path: str) -> types.CodeType:
    """The compiled script. One that does not compile is left to a new interpreter to explain."""
    try:
        with open(path, "rb") as source:
            return compile(source.read(), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        for number in PYTHON_IGNORES:
            signal.signal(number, signal.SIG_DFL)
        os.execve(sys.orig_argv[0], sys.orig_argv, os.environ)


def _status(code: object) -> int:
    """Exit status of SystemExit (handle_system_exit)."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    _flush(sys.stdout)
    print(code, file=sys.stderr)
    return 1


def _uncaught(error: BaseException) -> int:
    """Report an exception nobody caught, without the frames of this module (PyErr_PrintEx)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    error = error.with_traceback(trace)
    sys.last_type, sys.last_value, sys.last_traceback = type(error), error, trace
    try:
        sys.excepthook(type(error), error, trace)
    except SystemExit as end:
        return _status(end.code)
    except BaseException as second:
        print("Error in sys.excepthook:", file=sys.stderr)
        sys.__excepthook__(type(second), second, second.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)
        sys.__excepthook__(type(error), error, trace)
    return -signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1


def _finish(status: int) -> int:
    """Threads, exit functions, streams (Py_FinalizeEx); an interrupt ends by its signal."""
    wait_for_threads = vars(threading)["_shutdown"]
    try:
        wait_for_threads()
    except BaseException as error:
        sys.unraisablehook(_unraisable(error, wait_for_threads))
    atexit._run_exitfuncs()
    if not _flushed():
        status = FLUSH_FAILED
    if status == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    return status


def _unraisable(error: BaseException, where: object) -> types.SimpleNamespace:
    return types.SimpleNamespace(
        exc_type=type(error),
        exc_value=error,
        exc_traceback=error.__traceback__,
        err_msg="Exception ignored in",
        object=where,
    )


def _flushed() -> bool:
    """Write out stdout and stderr; False if stdout could not be (flush_std_files)."""
    done = _flush(sys.stdout)
    _flush(sys.stderr)
    return done


def _flush(stream: object) -> bool:
    try:
        if stream is not None and not getattr(stream, "closed", False):
            stream.flush()  # type: ignore[attr-defined]
    except Exception as error:
        sys.unraisablehook(_unraisable(error, stream))
        return False
    return True


def _clear(module: types.ModuleType) -> None:
    """Drop a module's names: first those with one underscore, then all (_PyModule_Clear)."""
    names = module.__dict__
    for first in (True, False):
        for name in list(names):
            if name == "__builtins__" or (first and (name[:1] != "_" or name[:2] == "__")):
                continue
            names[name] = None


def _forget(modules: dict[str, types.ModuleType]) -> None:
    """State that a module took from this process when it was loaded."""
    if "multiprocessing.process" in modules:
        modules["multiprocessing.process"].ORIGINAL_DIR = os.getcwd()  # type: ignore[attr-defined]
    if "tempfile" in modules:
        modules["tempfile"].tempdir = None  # type: ignore[attr-defined]
    if "numpy.random" in modules:
        modules["numpy.random"].seed()  # the random module does it itself


def _strings_below(home: str) -> list[tuple[types.ModuleType, str, str]]:
    """Module variables that hold a path below `home`: module, name, the path's rest."""
    found = []
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if type(value) is str and (value == home or value.startswith(home + "/")):
                found.append((module, name, value[len(home) :]))
    return found
