"""Tells the executor when a run's imports are done and when its first training step is.

A forked interpreter calls `begin`. An interpreter of its own finds a copy of this file on its path
as `sitecustomize`, which then makes room for one that the environment has. Standard library only,
Python 3.6 and later; nothing of it is left once the first step has been made.
"""

import os
import sys
import time

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, Dict, Optional

WANTED = "STELLWERK_MARKS"
FRAMEWORKS = frozenset(
    ["tensorflow", "keras", "tf_keras", "torch", "jax", "sklearn", "pandas", "matplotlib.pyplot"]
)
CALLBACKS = ("keras.src.callbacks", "tf_keras.src.callbacks")
WORTH_TELLING_S = 0.1
"""An import that took less is told with the next record."""

TELLING = False
"""While this module itself makes a connection: it is none of the script's."""


def begin() -> None:
    """Watch this process, the run's first that asks; what it starts is not watched."""
    path = os.environ.get("STELLWERK_RUN_SOCKET")
    if os.environ.pop(WANTED, None) and path:
        marks = Marks(path)
        sys.meta_path.insert(0, marks)
        marks.watch_steps()


class Marks(object):
    """A finder that finds nothing itself: it only sees frameworks begin and end their import."""

    def __init__(self, path: str) -> None:
        self._path, self._pid = path, os.getpid()
        self._depth = 0
        self._imports: "Optional[float]" = None
        self._watched: "Dict[Any, Any]" = {}

    def find_spec(
        self, name: str, path: "Any" = None, target: "Optional[ModuleType]" = None
    ) -> "Optional[ModuleSpec]":
        """The spec that the other finders have, its loader watched once."""
        if name not in FRAMEWORKS:
            return None
        others = [each for each in sys.meta_path if each is not self and hasattr(each, "find_spec")]
        specs = (finder.find_spec(name, path, target) for finder in others)
        spec = next(filter(None, specs), None)
        if spec is not None and hasattr(spec.loader, "exec_module"):
            self._watch_import(spec.loader)
        return spec

    def _watch_import(self, loader: "Any") -> None:
        load = loader.exec_module

        def exec_module(module: "ModuleType") -> None:
            del loader.exec_module
            began = time.monotonic()
            self._depth += 1
            try:
                load(module)
            finally:
                self._depth -= 1
            if not self._depth:
                self._imported(began)

        try:
            loader.exec_module = exec_module
        except AttributeError:
            return  # a loader that cannot be watched

    def _imported(self, began: float) -> None:
        self._imports = time.monotonic()
        self.watch_steps()
        if time.monotonic() - began >= WORTH_TELLING_S:
            self._tell(None)

    def watch_steps(self) -> None:
        """See the end of the first batch of `Model.fit`, in every Keras that is loaded."""
        for name in CALLBACKS:
            kind = getattr(sys.modules.get(name), "CallbackList", None)
            if kind is not None and kind not in self._watched:
                self._watched[kind] = kind.on_train_batch_end
                kind.on_train_batch_end = self._watching(kind.on_train_batch_end)

    def _watching(self, method: "Any") -> "Any":
        def on_train_batch_end(*args: "Any", **named: "Any") -> "Any":
            moment = time.monotonic()
            self._leave()
            self._tell(moment)
            return method(*args, **named)

        on_train_batch_end.__qualname__ = method.__qualname__  # functools would cost a millisecond
        on_train_batch_end.__module__ = method.__module__
        return on_train_batch_end

    def _leave(self) -> None:
        for kind, method in self._watched.items():
            kind.on_train_batch_end = method
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def _tell(self, first_step: "Optional[float]") -> None:
        """One record on a connection of its own. Whatever goes wrong is no matter of the script."""
        if os.getpid() != self._pid:
            return
        known = ""
        for name, moment in (("imports", self._imports), ("first_step", first_step)):
            if moment is not None:
                known += ',"%s":%.6f' % (name, moment)
        line = '{"k":"mark","pid":%d%s,"ts":%.6f}\n' % (self._pid, known, time.time())
        try:
            self._send(line.encode("ascii"))
        except Exception:
            return

    def _send(self, line: bytes) -> None:
        _send(self._path, line)


def tell_cold(path: str, why: str) -> None:
    """That this process, which was forked, begins again in a new interpreter."""
    line = '{"k":"mark","pid":%d,"cold":"%s","ts":%.6f}\n' % (os.getpid(), why, time.time())
    try:
        _send(path, line.encode("ascii"))
    except Exception:
        return


def _send(path: str, line: bytes) -> None:
    import _socket  # the socket module would cost milliseconds

    global TELLING
    folder, name = os.path.split(path)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    TELLING = True
    try:
        connection.settimeout(1.0)
        # Through the folder's descriptor: a socket address holds only 108 bytes.
        connection.connect("/proc/self/fd/%d/%s" % (descriptor, name))
        connection.send(line)
    finally:
        TELLING = False
        connection.close()
        os.close(descriptor)


def _make_room() -> None:
    """Load the sitecustomize that would have been found without this one; none: as if none."""
    from _frozen_importlib import module_from_spec
    from _frozen_importlib_external import PathFinder

    here = os.path.dirname(os.path.abspath(__file__))
    rest = [path for path in sys.path if os.path.abspath(path) != here]
    spec = PathFinder.find_spec(__name__, rest)
    if spec is None:
        raise ImportError("no sitecustomize", name=__name__)
    module = sys.modules[__name__] = module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]


if __name__ == "sitecustomize":
    begin()
    _make_room()
