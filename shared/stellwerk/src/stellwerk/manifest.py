"""A manifest lists files by content: the one form for snapshots, datasets, outputs and models.

Stored as canonical JSON under its own SHA-256, like every blob, and written last: files exist
for others when the manifest that names them does.
"""

import hashlib
import json
import re
import unicodedata
from typing import Annotated, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

MAX_ENTRIES = 100_000

_FORBIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")


def safe_path(text: str) -> str:
    """``text`` as a relative POSIX path in NFC, or ValueError saying what is wrong with it.

    Refused: empty, absolute, ``..`` or ``.`` parts, backslashes, control characters, parts of
    more than 255 bytes, more than 32 levels.
    """
    path = unicodedata.normalize("NFC", text)
    parts = path.split("/")
    if not path or _FORBIDDEN.search(path):
        raise ValueError(f"path {text[:100]!r} is empty or has control characters or backslashes")
    if path.startswith("/") or any(part in {"", ".", ".."} for part in parts):
        raise ValueError(f"path {text[:100]!r} must be relative, without '.', '..' or empty parts")
    if len(parts) > 32 or any(len(part.encode()) > 255 for part in parts):
        raise ValueError(
            f"path {text[:100]!r} is too deep (32 levels) or a part too long (255 bytes)"
        )
    return path


class ManifestEntry(BaseModel):
    """One file: where it lies, how long it is, what it holds. ``size`` in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Annotated[str, Field(max_length=4096)]
    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    executable: bool = False

    @field_validator("path")
    @classmethod
    def _safe(cls, path: str) -> str:
        return safe_path(path)


class Manifest(BaseModel):
    """Files sorted by path, each path once, no path both a file and a folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    entries: tuple[ManifestEntry, ...] = Field(default=(), max_length=MAX_ENTRIES)

    @model_validator(mode="after")
    def _unambiguous(self) -> Self:
        seen: set[str] = set()
        for entry in self.entries:
            if entry.path in seen:
                raise ValueError(f"path {entry.path!r} stands twice in the manifest")
            seen.add(entry.path)
        for path in seen:
            parent = path.rpartition("/")[0]
            while parent:
                if parent in seen:
                    raise ValueError(f"path {parent!r} is both a file and a folder")
                parent = parent.rpartition("/")[0]
        return self

    @property
    def size(self) -> int:
        """Sum of all files, in bytes."""
        return sum(entry.size for entry in self.entries)

    def canonical(self) -> bytes:
        """The bytes that are stored and hashed."""
        entries = sorted(self.entries, key=lambda entry: entry.path)
        rows = [entry.model_dump(exclude_defaults=True) for entry in entries]
        return json.dumps({"entries": rows}, sort_keys=True, separators=(",", ":")).encode()

    def digest(self) -> str:
        """SHA-256 of :meth:`canonical`."""
        return hashlib.sha256(self.canonical()).hexdigest()

    def under(self, prefix: str) -> "Manifest":
        """The file ``prefix`` alone, or the files of folder ``prefix``, paths kept whole."""
        inside = prefix.rstrip("/") + "/"
        chosen = [e for e in self.entries if e.path == prefix or e.path.startswith(inside)]
        return Manifest(entries=tuple(chosen))
