"""Loads modules before the fork and says whether a fork may serve. Never loads user code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import threading
import time

from stellwerk_shim.latent import Words

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from stellwerk_shim.latent import Said


class RefusedError(Exception):
    """This process must not serve; the text says why."""


def preload(
    names: list[str], started_with: frozenset[str]
) -> tuple[dict[str, object], dict[str, list[Said]]]:
    """Import `names` as far as they are installed; what is then true of this process.

    `modules`: top-level names that are loaded now and not in `started_with`. `loaded`: which of
    `names` are there. Raises RefusedError for a module that does not import, or that has started
    threads or opened a device: neither survives a fork. Besides, what was said while each of them
    was loaded, by its top-level name.
    """
    started = time.monotonic()
    loaded: list[str] = []
    threads, words = _threads(), Words()
    said: dict[str, list[Said]] = {}
    for name in names:
        if not _installed(name):
            continue
        try:
            importlib.import_module(name)
        except Exception as error:
            raise RefusedError(f"{name} does not import: {type(error).__name__}: {error}") from None
        loaded.append(name)
        said.setdefault(name.partition(".")[0], []).extend(words.take())
        if name == "numpy":
            threads = _threads()  # those of its BLAS, which handles forks itself
    words.close()
    _check(threads)
    fresh = {name.partition(".")[0] for name in set(sys.modules) - started_with}
    told = {
        "loaded": loaded,
        "modules": sorted(fresh),
        "seconds": time.monotonic() - started,
        "python": sys.version.split()[0],
    }
    return told, said


def _installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name.partition(".")[0]) is not None
    except (ImportError, ValueError):
        return False


def _check(threads: int) -> None:
    if threading.active_count() > 1 or _threads() > threads:
        raise RefusedError(f"the preloaded modules have started {_threads() - threads} threads")
    context = sys.modules.get("tensorflow.python.eager.context")
    if context is not None and context.context()._context_handle is not None:
        raise RefusedError("TensorFlow has initialised its devices")
    for entry in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue
        if target.startswith(("/dev/nvidia", "/dev/dri", "/dev/kfd")):
            raise RefusedError(f"the preloaded modules have opened {target}")


def _threads() -> int:
    """Threads of this process, native ones too."""
    return len(os.listdir("/proc/self/task"))
