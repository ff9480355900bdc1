"""An environment's files parted into layers: one for each package, one for what is no package's.

The layers together are the environment, file by file: what two packages claim, and what none
claims (the interpreter, what was put in to mend), lies in the last one as it lies on the disk. So
their order tells nothing, and a package may claim what it likes.

A package's layer has a key: environments of one cache share packages' files by hard links, so what
has the same inode, size and time is the same, and need not be read to be known. Compiled modules
follow from their sources and the Python; which of them are there is told by their paths.
"""

import csv
import hashlib
import io
import os
import posixpath
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from stellwerk_environment_build.cache import READY
from stellwerk_environment_build.failures import BuildFailedError, removing_name

CACHE_FOLDER = "__pycache__"
COMPILED = ".pyc"
MOST_PACKAGES = 60
"""So many packages, the largest, have a layer each; all others share one. An engine allows 127."""
REST = "environment"
_SHARED = "small packages"
_REMOVES = ".wh."
"""In a layer a name that begins so is no file: it takes away what has the rest of the name."""
_FORM = "2"
"""Raise it when the same files have to become other bytes."""

_RECORD = re.compile(r"(?P<site>lib/python[^/]+/site-packages)/(?P<name>[^/]+)\.dist-info/RECORD$")

Found = dict[str, os.stat_result]


@dataclass(frozen=True, slots=True)
class Layer:
    """``paths`` are relative, sorted, without the folders above them. ``key``: what it holds.

    Without a key it has to be read to know that.
    """

    title: str
    paths: tuple[str, ...]
    key: str | None = None


def layers_of(folder: Path, python: str | None) -> list[Layer]:
    """The layers of the environment in ``folder``, from the largest package to the rest.

    ``python`` is its version. What moves least often, and costs most to move, lies lowest. A conda
    environment is one layer: text in its files names where it lies. Raises BuildFailedError for a
    name that no layer can hold.
    """
    found = dict(_files(folder))
    found.pop(READY, None)
    refuse_removing(found)
    if (folder / "conda-meta").is_dir():
        return [Layer(REST, tuple(sorted(found)))]
    sources = {path: source_of(path) for path in found if path.endswith(COMPILED)}
    plain = {path: about for path, about in found.items() if sources.get(path) not in found}
    owners = _owners(folder, plain)
    parts: dict[str, list[str]] = defaultdict(list)
    sizes: dict[str, int] = defaultdict(int)
    for path in found:
        is_plain = path in plain
        owner = owners.get(path if is_plain else str(sources[path]), "")
        parts[owner].append(path)
        sizes[owner] += plain[path].st_size if is_plain else 0
    rest = parts.pop("", [])
    order = sorted(parts, key=lambda name: (-sizes[name], name))
    own, small = order[:MOST_PACKAGES], order[MOST_PACKAGES:]
    groups = [(name, parts[name]) for name in own]
    if small:
        groups.append((_SHARED, [path for name in small for path in parts[name]]))
    layers = [_layer(title, sorted(paths), folder, plain, python) for title, paths in groups]
    return [*layers, Layer(REST, tuple(sorted(rest)))]


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


def _owners(folder: Path, found: Found) -> dict[str, str]:
    """Which package says that a file is its own; "" where several do."""
    owners: dict[str, str] = {}
    for path, about in sorted(found.items()):
        record = _RECORD.match(path)
        if record is None or not stat.S_ISREG(about.st_mode):
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


def _layer(title: str, paths: list[str], folder: Path, plain: Found, python: str | None) -> Layer:
    digest = hashlib.sha256(f"{_FORM} {python}".encode())
    for path in paths:
        about = plain.get(path)
        what = (path, *(_identity(f"{folder}/{path}", about) if about else ()))
        digest.update(repr(what).encode())
    return Layer(title, tuple(paths), digest.hexdigest())


def _identity(path: str, about: os.stat_result) -> tuple[object, ...]:
    """What tells a file from another; one that is shared with nobody is read."""
    if stat.S_ISLNK(about.st_mode):
        return ("link", os.readlink(path))  # noqa: PTH115 - thousands of them
    if not stat.S_ISREG(about.st_mode):
        return ("folder",)
    executable = bool(about.st_mode & 0o111)
    if about.st_nlink == 1:
        with Path(path).open("rb") as file:
            return (executable, hashlib.file_digest(file, "sha256").hexdigest())
    return (executable, about.st_dev, about.st_ino, about.st_size, about.st_mtime_ns)
