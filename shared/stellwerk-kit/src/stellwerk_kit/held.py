"""Files that are sent while somebody may still write to them: all of the right bytes, or none."""

import hashlib
import os
from collections.abc import Callable
from typing import BinaryIO, Protocol

from stellwerk.errors import ProtocolError

CHUNK = 1024 * 1024


class Readable(Protocol):
    """What can be sent."""

    def read(self, size: int = -1, /) -> bytes:
        """At most ``size`` bytes, all without it."""


class TouchedError(Exception):
    """What was to be still was written to, or touched, while it was sent."""


class Held:
    """The first ``size`` bytes of a file; the last one only if all of them are right.

    So a wrong upload stays cut off and never has the name of a blob, which another run may be
    storing rightly at the same time. (Not all at once: SeaweedFS takes a body that is cut before
    its first byte for an empty one.) ``right`` is the digest that they must have, which raises
    ProtocolError ``output.changed``, or a question, whose False raises TouchedError.
    """

    def __init__(self, raw: BinaryIO, size: int, right: str | Callable[[], bool]) -> None:
        self._raw, self._left, self._right = raw, size, right
        self._hash = hashlib.sha256() if isinstance(right, str) else None

    def read(self, size: int = -1) -> bytes:
        """At most ``size`` bytes; raises as the class says."""
        if not self._left:
            return b""
        before_last = max(self._left - 1, 1)
        data = self._raw.read(before_last if size < 0 else min(size, before_last))
        self._left -= len(data)
        if self._hash is not None:
            self._hash.update(data)
        if not self._left or not data:
            self._require_right()
        return data

    def _require_right(self) -> None:
        if self._hash is not None:
            if self._left or self._hash.hexdigest() != self._right:
                raise changed()
        elif self._left or (callable(self._right) and not self._right()):
            raise TouchedError


def hash_stream(stream: BinaryIO) -> tuple[str, int]:
    """SHA-256 and size of what is left of a file."""
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def version(file: BinaryIO) -> tuple[int, int]:
    """Size and time of the last change, in nanoseconds."""
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def changed() -> ProtocolError:
    """The error for a file whose bytes are not what they were."""
    return ProtocolError("it changed while it was uploaded", code="output.changed")
