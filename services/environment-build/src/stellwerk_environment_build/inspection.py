"""What a lock names and what an installed environment holds."""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stellwerk.events.image import IMAGE_ENVIRONMENT

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
