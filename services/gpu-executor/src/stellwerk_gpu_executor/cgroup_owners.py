"""Control groups of executors that ended without a word: found by a mark, and removed.

The mark is an attribute of an executor's folder that names its process. Only root may set one on
version 1; a folder without a mark is left alone.
"""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from stellwerk_gpu_executor import processes

MARK = "trusted.stellwerk"
PREFIX = "stellwerk-"


def mark(folders: Iterable[Path]) -> None:
    """Say that these folders are this process's, as far as the kernel lets us."""
    for folder in set(folders):
        with suppress(OSError):
            os.setxattr(folder, MARK, _words(os.getpid()).encode())


def remove_abandoned(folders: Iterable[Path]) -> None:
    """Remove what lies beside these folders and belongs to an executor that is gone.

    A group in which a run goes on stays, and so does its executor's folder.
    """
    for place in {folder.parent for folder in folders}:
        with suppress(OSError):
            for folder in list(place.iterdir()):
                if folder.name.startswith(PREFIX) and _is_abandoned(folder):
                    _remove(folder)


def _is_abandoned(folder: Path) -> bool:
    try:
        owner = os.getxattr(folder, MARK).decode()
    except OSError:
        return False  # no folder, or nobody's
    pid, _, rest = owner.partition(" ")
    if not pid.isdigit() or not rest.startswith(f"{_namespace()} "):
        return False  # its number means nothing here
    return owner != _words(int(pid))


def _words(pid: int) -> str:
    """A process: its number, the processes among which it has it, when it started."""
    return f"{pid} {_namespace()} {processes.start_ticks(pid)}"


def _namespace() -> str:
    return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - text as it is


def _remove(folder: Path) -> None:
    for group in [path for path in folder.iterdir() if path.is_dir()]:
        with suppress(OSError):
            group.rmdir()
    with suppress(OSError):
        folder.rmdir()
