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
import sys
import types

from stellwerk_shim import files, marks, signals
from stellwerk_shim.latent import Latent
from stellwerk_shim.restart import Beginning, become_python

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import NoReturn

FLUSH_FAILED = 120


class Interpreter:
    """What of a freshly started interpreter must be remembered until a script runs in it.

    Made once, when everything is loaded; `home` is the value of HOME while it was loaded.
    `mounts`: descriptor of those its file is on, where they are its own, else -1.
    """

    def __init__(self, home: str, mounts: int = -1) -> None:
        self.mounts = mounts
        self._loaded = set(sys.modules)
        self._last = next(reversed(sys.modules))
        self._last_module = sys.modules[self._last]
        self._homes = list(_strings_below(home))
        self._settings = list(_memory_of_settings())
        self._home = home

    def run(
        self, argv: list[str], env: dict[str, str], enter: Callable[[], None], *, stay: bool
    ) -> NoReturn:
        """Run `argv[1]` with the rest as its arguments; never returns.

        The process already has its working folder, session, limits and standard streams. `enter`
        is called the moment before the script begins. With `stay` it never begins again cold.
        """
        status = 1
        try:
            self._forget_parent(env)
            main = _main_module(argv)
            code = _compiled(str(main.__file__))
            enter()
            if code is None:
                become_python(dict(os.environ))
            for each in sys.meta_path:
                if isinstance(each, Latent) and each and not stay:
                    each.beginning = Beginning(env)
            status = _finish(_execute(code, main))
            status = self._tear_down(status)
        finally:
            os._exit(status)

    def _forget_parent(self, env: dict[str, str]) -> None:
        """Undo what this process knows of the one it was forked from."""
        _set_environment(env)
        self._move_home(env.get("HOME", self._home))
        _forget(sys.modules)
        marks.begin()

    def _move_home(self, home: str) -> None:
        """Settings that modules derived from HOME when they were loaded follow it."""
        for each in self._settings:
            each.cell_contents = False
        for owner, name, kind, rest in self._homes:
            value = kind(home + rest)
            if isinstance(name, int):
                owner[name] = value  # type: ignore[index]
            else:
                setattr(owner, name, value)

    def _tear_down(self, status: int) -> int:
        """Let the script's own objects go, so that open files are written and finalizers run.

        A thread that is still there may use them: then only what is unwritten is written.
        """
        threading = sys.modules.get("threading")
        if threading is not None and threading.active_count() > 1:
            for stream in gc.get_objects():
                if isinstance(stream, (io.TextIOWrapper, io.BufferedWriter)):
                    _flush(stream)
            return status
        for name in ["__main__", *self._own_modules()]:
            module = sys.modules.get(name)
            if isinstance(module, types.ModuleType):
                _clear(module)
        gc.collect()  # what was loaded before the fork is frozen and costs nothing here
        return status if _flushed() else FLUSH_FAILED

    def _own_modules(self) -> list[str]:
        """What was loaded since the fork, the last first: names are in order of their loading."""
        untouched = sys.modules.get(self._last) is self._last_module
        own: list[str] = []
        for name in reversed(sys.modules):
            if untouched and name == self._last:
                break
            if name not in self._loaded and name != "__main__":
                own.append(name)
        return own


def _set_environment(env: dict[str, str]) -> None:
    """Make the environment `env`, touching only what differs. TZ is what it was: see Recipe."""
    data: dict[bytes, bytes] = vars(os.environ)["_data"]
    how = (sys.getfilesystemencoding(), "surrogateescape")
    wanted = {name.encode(*how): value.encode(*how) for name, value in env.items()}
    for name in data.keys() - wanted.keys():
        os.unsetenv(name)
    for name, value in wanted.items():
        if data.get(name) != value:
            os.putenv(name, value)
    data.clear()
    data.update(wanted)


def _main_module(argv: list[str]) -> types.ModuleType:
    """A fresh `__main__` for the script, and sys.argv and sys.path[0] as main.c sets them."""
    folder = os.getcwd()  # the kernel's own words: no link is in it
    path = os.path.normpath(os.path.join(folder, argv[1]))
    sys.argv = argv[1:]
    sys.orig_argv = list(argv)
    if not getattr(sys.flags, "safe_path", False):  # since Python 3.11
        plain = "/" not in argv[1] and not os.path.islink(path)
        sys.path[0] = folder if plain else os.path.dirname(os.path.realpath(path))
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


def _execute(code: types.CodeType, main: types.ModuleType) -> int:
    """Run the script; the exit status, or minus SIGINT for an interrupt nobody caught."""
    try:
        exec(code, main.__dict__)
    except SystemExit as end:
        return _status(end.code)
    except BaseException as error:
        return _uncaught(error)
    return 0


def _compiled(path: str) -> types.CodeType | None:
    """The compiled script, None for one that does not compile."""
    try:
        return compile(files.read(path), path, "exec", dont_inherit=True)
    except (OSError, SyntaxError, ValueError):
        return None


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
    return -signals.INT if isinstance(error, KeyboardInterrupt) else 1


def _finish(status: int) -> int:
    """Threads, exit functions, streams (Py_FinalizeEx); an interrupt ends by its signal."""
    threading = sys.modules.get("threading")
    if threading is not None:
        wait_for_threads = vars(threading)["_shutdown"]
        try:
            wait_for_threads()
        except BaseException as error:
            sys.unraisablehook(_unraisable(error, wait_for_threads))
    atexit._run_exitfuncs()
    if not _flushed():
        status = FLUSH_FAILED
    if status == -signals.INT:
        signals.handle(signals.INT, signals.DEFAULT)
        os.kill(os.getpid(), signals.INT)
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


def _memory_of_settings() -> Iterator[types.CellType]:
    """Where Matplotlib remembers that it has looked for its settings: False, and it looks again."""
    for name in ("get_configdir", "get_cachedir"):
        function = getattr(sys.modules.get("matplotlib"), name, None)
        code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
        for at, variable in enumerate(getattr(code, "co_freevars", ())):
            if variable == "called" and cells:
                yield cells[at]


def _strings_below(home: str) -> Iterator[tuple[object, str | int, type, str]]:
    """What holds a path below `home`: owner, name or place there, type, the path's rest.

    Variables of modules and of their classes, and lists in modules; strings and paths.
    """
    for module in list(sys.modules.values()):
        for name, value in list(getattr(module, "__dict__", {}).items()):
            if type(value) is list:
                for at, each in enumerate(value):
                    if (rest := _rest(each, home)) is not None:
                        yield value, at, type(each), rest
            elif type(value) is type and value.__module__ == module.__name__:
                for own, each in list(vars(value).items()):
                    if (rest := _rest(each, home)) is not None:
                        yield value, own, type(each), rest
            elif (rest := _rest(value, home)) is not None:
                yield module, name, type(value), rest


def _rest(value: object, home: str) -> str | None:
    """The part below `home` of a path that is below it."""
    # By type and name: a module's own kind of object may do anything when it is asked what it is.
    kind = type(value)
    if kind is not str and kind.__name__ != "PosixPath":
        return None
    text = str(value)
    return text[len(home) :] if text == home or text.startswith(home + "/") else None
