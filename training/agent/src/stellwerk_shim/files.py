"""Small files of the attempt folder: written once, read with tolerance.

Through `os` alone: a supervisor is a fork, and every object of `io` it used would be a page copied.
"""

from __future__ import annotations

import json
import os

READ_BYTES = 16384
RESERVED_BYTES = 4096
"""Room kept on the disk for the exit record, so that a full disk cannot swallow it."""


def write_json(folder: str, name: str, value: object) -> None:
    """Write `name`, which is not there yet; until it is whole it reads as {}. Not fsynced."""
    out = os.open(folder + "/" + name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        os.write(out, json.dumps(value).encode())
    finally:
        os.close(out)


def read(path: str) -> bytes:
    """Return what is in the file. Raises OSError."""
    source = os.open(path, os.O_RDONLY)
    try:
        return read_all(source)
    finally:
        os.close(source)


def read_all(source: int) -> bytes:
    """Return what is in an open file, from where it stands. Raises OSError."""
    data = os.read(source, READ_BYTES)
    while more := os.read(source, READ_BYTES):
        data += more
    return data


def read_json(folder: str, name: str) -> dict[str, object]:
    """Return the object in `name`, or {} if the file is absent or not a JSON object."""
    try:
        value = json.loads(read(folder + "/" + name))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Reserved:
    """A file whose block is allocated now, blank, and whose content arrives once, at the end."""

    def __init__(self, folder: str, name: str) -> None:
        self._file = os.open(folder + "/" + name, os.O_RDWR | os.O_CREAT, 0o600)
        os.write(self._file, b" " * RESERVED_BYTES)

    def commit(self, value: object, folder: int) -> None:
        """Put `value` in place durably: file and `folder` (its descriptor) fsynced.

        The blanks after it are part of the JSON, so there is no moment at which it is half there.
        """
        os.pwrite(self._file, json.dumps(value).encode(), 0)
        os.fsync(self._file)
        os.fsync(folder)
