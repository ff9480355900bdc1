"""An environment's files parted into layers: one for each package, one for what is no package's.

The layers together are the environment, file by file: what two packages claim, and what none
claims (the interpreter, what was put in to mend), lies in the last one as it lies on the disk. So
their order tells nothing, and a package may claim what it likes.

A package's layer has a key: environments of one cache share packages' files by hard links, so what
has the same inode, size and time is the same, and need not be read to be known. Compiled modules
follow from their sources and the Python; which of them are there is told by their paths.

In an environment with conda packages nothing is shared, and an interpreter of a channel compiled:
its files are known by what they hold, as the image will have them, compiled modules too.
"""

import csv
import hashlib
import io
import os
import posixpath
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk_environment_build import conda_prefix
from stellwerk_environment_build.cache import READY
from stellwerk_environment_build.conda_prefix import Content
from stellwerk_environment_build.failures import BuildFailedError, removing_name

CACHE_FOLDER = "__pycache__"
COMPILED = ".pyc"
MOST_PACKAGES = 60
"""So many packages, the largest, have a layer each; all others share one. An engine allows 127."""
REST = "environment"
_SHARED = "small packages"
_REMOVES = ".wh."
"""In a layer a name that begins so is no file: it takes away what has the rest of the name."""
_HEADER = 16
_FLAGGED = 3390
"""From this number on, Python 3.7's, a compiled module says how it is compared to its source."""
AT_A_TIME = 4
"""Layers whose files are read at once."""
_FORM = "2"
"""Raise it when the same files have to become other bytes."""

_RECORD = re.compile(r"(?P<site>lib/python[^/]+/site-packages)/(?P<name>[^/]+)\.dist-info/RECORD$")

Found = dict[str, os.stat_result]


@dataclass(frozen=True, slots=True)
class Layer:
    """``paths`` are relative, sorted, without the folders above them. ``key``: what it holds.

    Without a key it has to be read to know that. ``times`` are of those whose compiled modules
    compare them; all others have none.
    """

    title: str
    paths: tuple[str, ...]
    key: str | None = None
    times: Mapping[str, int] = field(default_factory=dict)


def layers_of(folder: Path, python: str | None, content: Content | None = None) -> list[Layer]:
    """The layers of the environment in ``folder``, from the largest package to the rest.

    ``python`` is its version. ``content`` may give other bytes than a file has. What moves least
    often, and costs most to move, lies lowest. Raises BuildFailedError for a name that no layer
    can hold.
    """
    found = dict(_files(folder))
    found.pop(READY, None)
    refuse_removing(found)
    conda = conda_prefix.is_conda(folder)
    sources = {path: source_of(path) for path in found if path.endswith(COMPILED)}
    plain = {
        path: about for path, about in found.items() if conda or sources.get(path) not in found
    }
    owners = _owners(folder, plain, conda_prefix.linked(folder) if conda else {})
    times = compared_times(folder, found, sources) if conda else {}
    parts: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for path in found:
        owner = owners.get(path, owners.get(str(sources.get(path)), ""))
        parts[owner].append(path)
        sizes[owner] += plain[path].st_size if path in plain else 0
    rest = parts.pop("", [])
    order = sorted(parts, key=lambda name: (-sizes[name], name))
    own, small = order[:MOST_PACKAGES], order[MOST_PACKAGES:]
    groups = [(name, parts[name]) for name in own]
    if small:
        groups.append((_SHARED, [path for name in small for path in parts[name]]))
    layer = _Layers(folder, plain, times, content, python, read=conda)
    with ThreadPoolExecutor(AT_A_TIME, "image-key") as threads:
        layers = list(threads.map(lambda group: layer.of(group[0], sorted(group[1])), groups))
    return [*layers, Layer(REST, tuple(sorted(rest)), times=layer.times_of(rest))]


def outside_packages(folder: Path) -> list[str]:
    """Paths of what an interpreter needs to start: all but ``site-packages``; parents first."""
    return with_folders([path for path, _ in _files(folder) if "/site-packages/" not in path])


def all_paths(folder: Path) -> list[str]:
    """Everything below ``folder``, itself first, parents before children."""
    return [".", *with_folders([str(path.relative_to(folder)) for path in folder.rglob("*")])]


def refuse_removing(paths: Iterable[str]) -> None:
    """Raises BuildFailedError for a file or folder that would take another one out of the image."""
    for path in paths:
        if f"/{_REMOVES}" in f"/{path}":
            raise BuildFailedError(removing_name(path))


def with_folders(paths: list[str]) -> list[str]:
    """The paths with all folders above them, parents first."""
    found = set(paths)
    for path in paths:
        above = posixpath.dirname(path)
        while above not in found and above != "":
            found.add(above)
            above = posixpath.dirname(above)
    return sorted(found)


def source_of(path: str) -> str | None:
    """``a/__pycache__/m.cpython-311.pyc`` comes from ``a/m.py``; None for what is not compiled."""
    folder, name = posixpath.split(path)
    above, last = posixpath.split(folder)
    if last != CACHE_FOLDER or not name.endswith(COMPILED):
        return None
    return posixpath.join(above, f"{name.partition('.')[0]}.py")


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Files, links and empty folders."""
    pending = [""]
    while pending:
        inside = pending.pop()
        empty = True
        with os.scandir(f"{folder}/{inside}") as entries:
            for entry in entries:
                empty = False
                path = f"{inside}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    pending.append(f"{path}/")
                else:
                    yield path, entry.stat(follow_symlinks=False)
        if empty and inside:
            yield inside.rstrip("/"), (folder / inside).lstat()


def _owners(folder: Path, found: Found, linked: Mapping[str, str]) -> dict[str, str]:
    """Which package says that a file is its own; "" where several do.

    ``linked``: what conda packages say, who know it better than the RECORD that one brings along.
    """
    owners = {path: owner for path, owner in linked.items() if path in found}
    for path, about in sorted(found.items()):
        record = _RECORD.match(path)
        if record is None or path in linked or not stat.S_ISREG(about.st_mode):
            continue
        text = (folder / path).read_text(encoding="utf-8", errors="replace")
        try:
            claimed = {row[0] for row in csv.reader(io.StringIO(text)) if row}
        except csv.Error:
            continue
        for each in claimed:
            inside = f"{record['site']}/{each}"
            inside = posixpath.normpath(inside) if ".." in each else inside
            if inside in found:
                owners[inside] = "" if inside in owners else record["name"]
    return owners


@dataclass(frozen=True, slots=True)
class _Layers:
    """What makes layers of groups of files. ``read``: a file is known by its content alone."""

    folder: Path
    plain: Found
    times: Mapping[str, int]
    content: Content | None
    python: str | None
    read: bool

    def of(self, title: str, paths: list[str]) -> Layer:
        digest = hashlib.sha256(f"{_FORM} {self.python}".encode())
        times = self.times_of(paths)
        for path in paths:
            about = self.plain.get(path)
            what = (path, *(self._identity(path, about) if about else ()))
            digest.update(repr((*what, times[path]) if path in times else what).encode())
        return Layer(title, tuple(paths), digest.hexdigest(), times)

    def times_of(self, paths: Iterable[str]) -> dict[str, int]:
        return {path: self.times[path] for path in paths if path in self.times}

    def _identity(self, path: str, about: os.stat_result) -> tuple[object, ...]:
        """What tells a file from another; one that is shared with nobody is read."""
        place = f"{self.folder}/{path}"
        if stat.S_ISLNK(about.st_mode):
            return ("link", os.readlink(place))  # noqa: PTH115 - thousands of them
        if not stat.S_ISREG(about.st_mode):
            return ("folder",)
        executable = bool(about.st_mode & 0o111)
        other = self.content(Path(place)) if self.content else None
        if other is not None:
            return (executable, hashlib.sha256(other).hexdigest())
        if self.read or about.st_nlink == 1:
            with Path(place).open("rb") as file:
                return (executable, hashlib.file_digest(file, "sha256").hexdigest())
        return (executable, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)


def compared_times(folder: Path, found: Found, sources: Mapping[str, str | None]) -> dict[str, int]:
    """The times of sources that a compiled module compares, where they are what it expects.

    Those that compare nothing, or are old already, need none.
    """
    times: dict[str, int] = {}
    for path, source in sources.items():
        about = found.get(str(source))
        if about is None or not stat.S_ISREG(found[path].st_mode):
            continue
        with (folder / path).open("rb") as file:
            wanted = _compared_time(file.read(_HEADER))
        if source is not None and wanted == int(about.st_mtime) & 0xFFFFFFFF:
            times[source] = wanted
    return times


def _compared_time(header: bytes) -> int | None:
    """The source's time that a compiled module expects; None where it compares none."""
    number, first, second = (
        int.from_bytes(header[at : at + size], "little") for at, size in ((0, 2), (4, 4), (8, 4))
    )
    if number < _FLAGGED:
        return first
    return None if first else second
