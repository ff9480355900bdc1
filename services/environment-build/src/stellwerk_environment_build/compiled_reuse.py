"""Compiled modules of other environments of the cache, for the modules that they share.

Packages' files are shared by hard links, so the same inode is the same source; what was compiled
from it for the same Python is the same too (the file name in it is put right by the import).
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from stellwerk_environment_build import inspection

MOST_DONORS = 5


@dataclass(frozen=True, slots=True)
class Donor:
    """An environment whose modules were compiled, and its packages as its lock names them."""

    path: Path
    packages: frozenset[str]


def choose(donors: Sequence[Donor], packages: Iterable[str]) -> list[Path]:
    """Few donors that together have as many of ``packages`` as can be; the first wins a tie."""
    left, chosen = set(packages), list[Path]()
    while donors and left and len(chosen) < MOST_DONORS:
        best = max(donors, key=lambda each: len(left & each.packages))
        if not left & best.packages:
            break
        chosen.append(best.path)
        left -= best.packages
    return chosen


def reuse(target: Path, donors: Iterable[Path], python: str) -> list[str]:
    """Link what the donors have compiled; the paths of the modules that remain to be compiled.

    ``python`` is the version of all of them, as 3.11.2.
    """
    suffix = f".cpython-{''.join(python.split('.')[:2])}.pyc"
    known = {key: compiled for donor in donors for key, compiled in _compiled(donor, suffix)}
    remaining = []
    for module in inspection.modules(target):
        stat = os.stat(module)  # noqa: PTH116 - thousands of them
        compiled = known.get((stat.st_dev, stat.st_ino))
        if compiled is None or not _linked(compiled, _place(module, suffix)):
            remaining.append(module)
    return remaining


def _compiled(donor: Path, suffix: str) -> Iterator[tuple[tuple[int, int], str]]:
    with suppress(OSError, StopIteration):  # it may be leaving the cache in this moment
        for module in inspection.modules(donor):
            stat = os.stat(module)  # noqa: PTH116 - thousands of them
            if stat.st_nlink > 1:
                yield (stat.st_dev, stat.st_ino), _place(module, suffix)


def _linked(compiled: str, place: str) -> bool:
    try:
        os.makedirs(os.path.dirname(place), exist_ok=True)  # noqa: PTH103, PTH120 - same
        os.link(compiled, place)
    except OSError:
        return False
    return True


def _place(module: str, suffix: str) -> str:
    folder, name = os.path.split(module)
    return f"{folder}/__pycache__/{name.removesuffix('.py')}{suffix}"
