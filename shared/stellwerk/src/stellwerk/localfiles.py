"""Local files on their way to the platform: what they are called there, and what they hold."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from stellwerk.errors import UserError
from stellwerk.manifest import Manifest, ManifestEntry

CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file to upload: where it lies and the relative path it gets."""

    path: Path
    name: str
    size: int


@dataclass(frozen=True, slots=True)
class HashedFile:
    """A local file and the manifest entry that describes it."""

    path: Path
    entry: ManifestEntry


def local_file(path: Path, name: str) -> LocalFile:
    """Raises UserError where ``path`` is no readable regular file."""
    try:
        is_file, size = path.is_file(), path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{path}: {error.strerror}", code="file.unreadable", field="path"
        ) from error
    if not is_file:
        raise UserError(f"{path} is not a regular file", code="file.type", field="path")
    return LocalFile(path, name, size)


def tree(folder: Path, pattern: str | None = None) -> list[LocalFile]:
    """All files below ``folder``, named relative to it; ``pattern`` is a glob such as ``*.gz``."""
    if not folder.is_dir():
        raise UserError(f"src_dir: {folder} is not a folder", code="file.missing", field="src_dir")
    found = sorted(folder.rglob(pattern or "*"))
    return [
        local_file(each, each.relative_to(folder).as_posix()) for each in found if not each.is_dir()
    ]


def hashed(files: Iterable[LocalFile]) -> list[HashedFile]:
    """Read every file once for its SHA-256. Raises UserError naming what cannot be read."""
    return [HashedFile(each.path, _entry(each)) for each in files]


def manifest_of(files: Iterable[HashedFile]) -> Manifest:
    """The manifest of hashed files. Raises UserError where two have the same name."""
    try:
        return Manifest(entries=tuple(each.entry for each in files))
    except ValidationError as error:
        raise UserError(_first(error), code="source.ambiguous") from error


def chunks(path: Path, sha256: str) -> Iterator[bytes]:
    """The file's bytes; the last ones only if all of them are what was hashed before."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        ahead = file.read(CHUNK)
        while ahead:
            digest.update(ahead)
            current, ahead = ahead, file.read(CHUNK)
            if not ahead and digest.hexdigest() != sha256:
                raise UserError(
                    f"{path} was changed while it was uploaded; try again when it is complete",
                    code="file.changed",
                )
            yield current


def _entry(file: LocalFile) -> ManifestEntry:
    digest, size = hashlib.sha256(), 0
    try:
        with file.path.open("rb") as opened:
            executable = bool(os.fstat(opened.fileno()).st_mode & 0o100)
            while chunk := opened.read(CHUNK):
                digest.update(chunk)
                size += len(chunk)
    except OSError as error:
        raise UserError(
            f"{file.path} cannot be read: {error.strerror}", code="file.unreadable"
        ) from error
    try:
        return ManifestEntry(
            path=file.name, size=size, sha256=digest.hexdigest(), executable=executable
        )
    except ValidationError as error:
        reason = _first(error)
        raise UserError(
            f"{os.fsencode(file.name)!r} cannot be uploaded: {reason}. Rename or exclude it.",
            code="file.name",
        ) from error


def _first(error: ValidationError) -> str:
    return str(error.errors(include_url=False)[0]["msg"]).removeprefix("Value error, ")
