"""Matplotlib's list of an environment's fonts: made once, outside of runs, copied into each.

Matplotlib keeps it where its settings are and writes it there if it is missing, through whatever
link lies in the way. So every process has such a folder of its own, in its home. To make the list
takes a fraction of a second, seconds where a machine has many fonts: a warm process has made it
anyway, and runs of its environment get that.
"""

import os
import re
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk_kit.beneath import open_beneath

FOLDER = ".matplotlib"
"""Of a home: the value of MPLCONFIGDIR, of runs and of warm processes."""
LIST = re.compile(r"fontlist-v[\w.]{1,32}\.json")
MOST_BYTES = 16 << 20
MOST = 16
"""Environments whose lists are kept; the one learnt first leaves."""


@dataclass
class Fonts:
    """The lists of environments, by interpreter: names and contents of files."""

    _lists: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def learn(self, python: str, home: Path) -> None:
        """Keep the lists that a warm process has made in its home, where no run can write."""
        with suppress(OSError):
            names = sorted(filter(LIST.fullmatch, os.listdir(home / FOLDER)))  # noqa: PTH208
            self._lists.pop(python, None)
            self._lists[python] = {name: _read(home, name) for name in names[:2]}
            if len(self._lists) > MOST:
                self._lists.pop(next(iter(self._lists)))

    def lay(self, python: str, home: Path) -> None:
        """Give a home, which nobody has used yet, the lists that are known. Raises OSError."""
        lists = self._lists.get(python)
        if not lists:
            return
        with suppress(FileExistsError):
            os.mkdir(f"{home}/{FOLDER}", 0o700)  # noqa: PTH102
        for name, content in lists.items():
            with os.fdopen(os.open(f"{home}/{FOLDER}/{name}", NEW, 0o600), "wb") as file:
                file.write(content)


NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def _read(home: Path, name: str) -> bytes:
    file = open_beneath(home, home / FOLDER / name)
    try:
        if os.fstat(file.descriptor).st_size > MOST_BYTES:
            raise OSError(f"{name} is no list of fonts")
        return os.pread(file.descriptor, MOST_BYTES, 0)
    finally:
        file.close()
