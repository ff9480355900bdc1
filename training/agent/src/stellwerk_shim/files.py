"""Small files of the attempt folder: atomic writes, tolerant reads."""

from __future__ import annotations

import json
import os

RESERVED_BYTES = 4096
"""Room kept on the disk for the exit record, so that a full disk cannot swallow it."""


def write_json(folder: str, name: str, value: object) -> None:
    """Write `name` atomically: readers see the old file or the whole new one. Not fsynced."""
    temporary = os.path.join(folder, name + ".tmp")
    with open(temporary, "w", opener=_private) as out:
        out.write(json.dumps(value))
    os.rename(temporary, os.path.join(folder, name))


def read_json(folder: str, name: str) -> dict[str, object]:
    """Return the object in `name`, or {} if the file is absent or not a JSON object."""
    try:
        with open(os.path.join(folder, name), encoding="utf-8") as source:
            value = json.load(source)
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Reserved:
    """A file whose blocks are allocated now and whose content arrives once, at the end."""

    def __init__(self, folder: str, name: str) -> None:
        self._folder = folder
        self._final = os.path.join(folder, name)
        self._temporary = self._final + ".tmp"
        self._fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600)
        os.write(self._fd, b"\0" * RESERVED_BYTES)

    def commit(self, value: object) -> None:
        """Put `value` in place durably: file fsynced, renamed, folder fsynced."""
        data = json.dumps(value).encode()
        os.pwrite(self._fd, data, 0)
        os.ftruncate(self._fd, len(data))
        os.fsync(self._fd)
        os.rename(self._temporary, self._final)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        os.fsync(folder)
        os.close(folder)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
