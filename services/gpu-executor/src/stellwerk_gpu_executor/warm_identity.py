"""Whether an environment is still what it was when a warm process was begun in it.

One that Stellwerk built never changes under its name: its folder's inode and time tell whether it
was replaced. A user's own may change at any moment: there the warm process names every file and
folder it was made of, and each must be the same inode, untouched.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from stellwerk_kit.beneath import open_beneath

ORIGINS = "origins"
"""File in a warm process's home with those names, one a line."""
MOST_BYTES = 4 << 20
GRAIN_NS = 20_000_000
"""Files get the time of the kernel's last tick: one changed now may look so much older."""

Mark = tuple[int, int, int, int] | None
"""Inode, size, content's and inode's time in nanoseconds; None where nothing is."""


@dataclass(frozen=True, slots=True)
class Marks:
    """Names and what was there when `of` looked."""

    paths: tuple[str, ...]
    values: tuple[Mark, ...]

    @classmethod
    def of(cls, paths: tuple[str, ...]) -> "Marks":
        """Look at `paths` now."""
        return cls(paths, tuple([_mark(path) for path in paths]))

    def still(self) -> bool:
        """Whether all is as it was."""
        return self.values == tuple([_mark(path) for path in self.paths])

    def older_than(self, moment_ns: int) -> bool:
        """Whether all was untouched since before that moment (nanoseconds since the epoch)."""
        return all(mark is None or mark[3] < moment_ns - GRAIN_NS for mark in self.values)


def environment_of(python: str) -> Marks:
    """The folder of an environment, by its interpreter."""
    return Marks.of((str(Path(python).parent.parent),))


def origins(home: Path) -> Marks:
    """What the warm process that lives in `home` was made of. Raises OSError."""
    file = open_beneath(home, home / ORIGINS)
    try:
        text = os.pread(file.descriptor, MOST_BYTES + 1, 0).decode("utf-8", "surrogateescape")
    finally:
        file.close()
    if len(text) > MOST_BYTES:
        raise OSError(f"it is made of more than {MOST_BYTES} bytes of names")
    return Marks.of(tuple(text.split("\n")[:-1]))


def _mark(path: str) -> Mark:
    try:
        status = os.stat(path)  # noqa: PTH116 - a Path for each would double the cost
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
