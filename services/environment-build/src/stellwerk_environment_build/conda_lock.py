"""The conda part of a lock: comment lines before the pip part, so that both are one text. Pure.

A line is ``#conda <channel>/<subdir>/<name>-<version>-<build>.conda sha256=<hex>``: a channel's
name and no host, so that the same lock works behind any mirror.
"""

import re
from collections.abc import Iterable
from typing import NamedTuple

_LINE = re.compile(
    r"^#conda (?P<channel>\S+)/(?P<subdir>[\w-]+)/(?P<file>[^\s/]+)"
    r" sha256=(?P<sha256>[0-9a-f]{64})$",
    re.MULTILINE,
)
_ENDINGS = (".conda", ".tar.bz2")


class CondaEntry(NamedTuple):
    """One file of a channel."""

    channel: str
    subdir: str
    file: str
    sha256: str

    @property
    def name(self) -> str:
        """What conda calls the package."""
        return self._parts[0]

    @property
    def version(self) -> str:
        """Its version."""
        return self._parts[1]

    @property
    def title(self) -> str:
        """``name=version=build``, as conda writes it."""
        return "=".join(self._parts)

    @property
    def stem(self) -> str:
        """The file's name without its ending."""
        return file_stem(self.file)

    @property
    def _parts(self) -> tuple[str, str, str]:
        name, version, build = self.stem.rsplit("-", 2)
        return name, version, build


def file_stem(file: str) -> str:
    """The name of a package's file without its ending."""
    for ending in _ENDINGS:
        file = file.removesuffix(ending)
    return file


def spell(entries: Iterable[CondaEntry]) -> str:
    """The lines, sorted by package."""
    return "".join(
        f"#conda {each.channel}/{each.subdir}/{each.file} sha256={each.sha256}\n"
        for each in sorted(entries, key=lambda each: (each.name, each.file))
    )


def read_entries(lock: str) -> tuple[CondaEntry, ...]:
    """The conda packages that a lock names."""
    return tuple(CondaEntry(**found.groupdict()) for found in _LINE.finditer(lock))
