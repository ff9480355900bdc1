"""Conda packages as they are kept: unpacked, checked, each under its file's name and its hash.

The library that links packages copies a file through a link that lies in its place, from wherever
the link leads. So a package is looked through between unpacking and linking, and gets its name
among those that are kept only then: what a killed worker leaves is never used.
"""

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from rattler.exceptions import IoError
from rattler.package import PathsEntry, PathsJson

Unpack = Callable[[Path], Awaitable[object]]
_KEPT = re.compile(r"-[0-9a-f]{64}$")


class OutsideError(Exception):
    """A package has a file that leads out of it, or does not say which files it has."""


@dataclass(frozen=True)
class KeptPackages:
    """``folder`` holds them; ``readable``: folders that links of packages may lead to as well."""

    folder: Path
    readable: tuple[Path, ...] = ()

    def place(self, stem: str, sha256: str) -> Path:
        """Where a package lies once it is kept."""
        return self.folder / f"{stem}-{sha256}"

    @contextmanager
    def unpacking(self) -> Iterator[Path]:
        """A folder to unpack in. What lies there from before goes, unless others are at work.

        So do packages that are kept as the library keeps them, which nobody has looked through.
        """
        fresh = self.folder.with_name("unpacking")
        for each in (self.folder, fresh):
            each.mkdir(parents=True, exist_ok=True)
        lock = os.open(fresh.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                unseen = (each for each in self.folder.iterdir() if not _KEPT.search(each.name))
                for each in (*fresh.iterdir(), *unseen):
                    shutil.rmtree(each, ignore_errors=True)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with tempfile.TemporaryDirectory(dir=fresh, ignore_cleanup_errors=True) as made:
                yield Path(made)
        finally:
            os.close(lock)

    async def keep(self, stem: str, sha256: str, unpack: Unpack, fresh: Path) -> None:
        """Have the package, unpacked by ``unpack`` below ``fresh`` where it is not there whole.

        Raises OutsideError.
        """
        place = self.place(stem, sha256)
        if place.is_dir():
            with suppress(OutsideError):
                self._check(place)
                return
            shutil.rmtree(place, ignore_errors=True)
        unpacked = fresh / place.name
        await unpack(unpacked)
        self._check(unpacked)
        with suppress(OSError):  # another worker may have been faster
            unpacked.rename(place)
        place.stat()

    def show(self, stem: str, sha256: str, folder: Path, name: str) -> None:
        """Show it under ``name`` in ``folder``, as the library looks for packages."""
        (folder / name).symlink_to(self.place(stem, sha256))

    def _check(self, package: Path) -> None:
        """All that is read of it, and all that it has listed, lies in it."""
        top = os.path.realpath(package)
        about = package / "info"
        for path in (about, *(about.iterdir() if about.is_dir() else ())):
            if not _within(top, path):
                raise OutsideError(f"has a file {str(path.relative_to(package))!r}")
        try:
            listed = PathsJson.from_path(about / "paths.json").paths
        except IoError:  # the library would go by older lists then
            raise OutsideError("has no readable list of its files (info/paths.json)") from None
        for entry in listed:
            if not self._is_inside(package, top, entry):
                raise OutsideError(f"has a file {str(entry.relative_path)[:200]!r}")
            path = package / entry.relative_path
            if not entry.path_type.directory and not os.path.lexists(path):
                raise OutsideError(f"lists a file {str(entry.relative_path)[:200]!r} it has not")

    def _is_inside(self, package: Path, top: str, entry: PathsEntry) -> bool:
        path = PurePosixPath(entry.relative_path)
        if path.is_absolute() or ".." in path.parts:
            return False
        place = package / path
        if not (entry.path_type.softlink and place.is_symlink()):
            return _within(top, place)
        # It becomes a link again, of the environment: it may lead to what other packages bring.
        target = place.readlink()
        if target.is_absolute():
            leads = Path(os.path.normpath(target))
            return _within(top, place.parent) and any(map(leads.is_relative_to, self.readable))
        leads = Path(os.path.normpath(path.parent / target))
        return ".." not in leads.parts and _within(top, place)


def _within(top: str, path: Path) -> bool:
    found = os.path.realpath(path)
    return found == top or found.startswith(f"{top}/")
