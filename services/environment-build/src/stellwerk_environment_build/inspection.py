"""What a lock names and what an installed environment holds."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from packaging.utils import canonicalize_name

from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.conda_lock import CondaEntry, read_entries

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
    def pins(self) -> tuple[str, ...]:
        """Packages of the package index, ``name==version``, sorted."""
        return tuple(sorted(f"{name}=={version}" for name, version in _PIN.findall(self.text)))

    @property
    def conda(self) -> tuple[CondaEntry, ...]:
        """Packages of conda channels."""
        return read_entries(self.text)

    @property
    def packages(self) -> tuple[str, ...]:
        """``name==version`` and conda's ``name=version=build``, sorted."""
        return tuple(sorted((*self.pins, *(each.title for each in self.conda))))

    @property
    def python(self) -> str | None:
        """The Python that comes from a conda channel."""
        return next((each.version for each in self.conda if each.name == "python"), None)


def site_packages(environment: Path) -> Path:
    """The folder that packages are installed into."""
    return next(environment.glob("lib/python3.*/site-packages"))


class Distribution(NamedTuple):
    """An installed package of Python; ``name`` is canonical, ``licence`` as it states it."""

    name: str
    version: str
    licence: str | None
    requires: tuple[str, ...]


def distributions(environment: Path) -> tuple[Distribution, ...]:
    """All of them, whoever installed them, sorted by name."""
    sites = [str(each) for each in environment.glob("lib/python3.*/site-packages")]
    found = metadata.distributions(path=sites)
    return tuple(sorted(_distribution(each) for each in found if each.metadata["Name"]))


def _distribution(found: metadata.Distribution) -> Distribution:
    about = found.metadata.json
    licence = about.get("license_expression") or about.get("license")
    name = canonicalize_name(found.metadata["Name"])
    return Distribution(
        name, found.version, str(licence or "") or None, tuple(found.requires or ())
    )


def move_scripts(source: Path, target: Path) -> None:
    """Move entry points to where an image has them, and let its own interpreter run them."""
    if not source.exists():
        return
    source.rename(target)
    for path in target.iterdir():
        head, _, rest = path.read_bytes().partition(b"\n")
        if head == b"#!/bin/sh" and rest.startswith(b"'''exec'"):  # where the path is long
            head, rest = b"#!python", rest.partition(b"\n' '''\n")[2]
        if head.startswith(b"#!") and b"python" in head:
            path.write_bytes(f"#!{IMAGE_ENVIRONMENT}/bin/python\n".encode() + rest)


def modules(environment: Path) -> list[str]:
    """Paths of all source modules."""
    return [path.path for path in _files(site_packages(environment)) if path.name.endswith(".py")]


def count_installed(environment: Path) -> int:
    """How many packages are there so far."""
    return sum(1 for _ in site_packages(environment).glob("*.dist-info"))


def has_more_files(environment: Path, limit: int) -> bool:
    """Whether there are more than ``limit`` files; looks at no more than that."""
    return next(islice(_files(environment), limit, None), None) is not None


def measure(environment: Path) -> int:
    """Bytes of all installed files."""
    return sum(entry.stat(follow_symlinks=False).st_size for entry in _files(environment))


def _files(folder: Path) -> Iterator[os.DirEntry[str]]:
    pending = [os.fspath(folder)]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry
