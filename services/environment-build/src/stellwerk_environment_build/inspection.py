"""What an installed environment holds, and whether it stayed inside its own folder."""

import csv
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stellwerk_environment_build.failures import BuildFailedError, wheel_invalid

MAX_FILES = 500_000
_PIN = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)==([^\s;\\]+)", re.MULTILINE)


@dataclass(frozen=True)
class Lock:
    """The exact packages of an environment, each with its hashes; host-free text."""

    text: str

    @property
    def digest(self) -> str:
        """SHA-256 of the text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def packages(self) -> tuple[str, ...]:
        """``name==version``, sorted."""
        return tuple(sorted(f"{name}=={version}" for name, version in _PIN.findall(self.text)))


def site_packages(environment: Path) -> Path:
    """The folder that packages are installed into."""
    return next(environment.glob("lib/python3.*/site-packages"))


def count_modules(environment: Path) -> int:
    """How many source modules there are to compile."""
    return sum(1 for path in _files(site_packages(environment)) if path.name.endswith(".py"))


def count_installed(environment: Path) -> int:
    """How many packages are there so far."""
    return sum(1 for _ in site_packages(environment).glob("*.dist-info"))


def measure(environment: Path) -> int:
    """Bytes of all files. Raises BuildFailedError for links among the packages, or too many files."""
    total = count = 0
    for entry in _files(site_packages(environment)):
        status = entry.stat(follow_symlinks=False)
        total, count = total + status.st_size, count + 1
        if stat.S_ISLNK(status.st_mode):
            raise BuildFailedError(wheel_invalid(_owner(entry.path), "it holds a symbolic link"))
        if count > MAX_FILES:
            raise BuildFailedError(
                wheel_invalid(_owner(entry.path), f"the environment has over {MAX_FILES} files")
            )
    return total


def check_records(environment: Path) -> None:
    """Raise BuildFailedError where a package's file list names a place outside the environment."""
    packages = site_packages(environment)
    root = os.path.normpath(environment) + os.sep
    for record in packages.glob("*.dist-info/RECORD"):
        for name in _listed(record):
            if not os.path.normpath(packages / name).startswith(root):
                package = record.parent.name.removesuffix(".dist-info")
                problem = f"its file list names {name[:80]!r}, outside the environment"
                raise BuildFailedError(wheel_invalid(package, problem))


def _listed(record: Path) -> Iterator[str]:
    with record.open(encoding="utf-8", errors="replace", newline="") as file:
        yield from (row[0] for row in csv.reader(file) if row)


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry


def _owner(path: str) -> str:
    return path.partition("site-packages" + os.sep)[2].partition(os.sep)[0]
