"""What BuildKit tells of a build: its records in protobuf, as lines for people. Pure.

The engine sends them as ``moby.buildkit.trace``, each a ``moby.buildkit.v1.StatusResponse``. Of its
fields these alone are read: steps (1) with digest, name, cached, started and error (1, 3, 4, 5, 7),
and their words (3) with the step's digest and the text (1, 4).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SHOWN = re.compile(r"\[(?!internal\])")
"""Steps of the Dockerfile; BuildKit has others of its own."""
_MAX_LINE = 65_536


@dataclass
class Narration:
    """Lines of a build. A step's words come under its name, said again after another's."""

    _names: dict[bytes, str] = field(default_factory=dict)
    _pending: dict[bytes, bytes] = field(default_factory=dict)
    _speaking: bytes = b""

    def tell(self, record: bytes) -> Iterator[str]:
        """What a record has to say. Raises ValueError for one that is none."""
        for number, value in _fields(record):
            if number == 1:
                yield from self._step(_entries(value))
            if number == 3:
                yield from self._words(_entries(value))

    def end(self) -> Iterator[str]:
        """Words without an end of their line."""
        for digest, text in self._pending.items():
            if text.strip():
                yield from self._said(digest, [text])
        self._pending.clear()

    def _step(self, entries: dict[int, int | bytes]) -> Iterator[str]:
        digest, name = _bytes(entries, 1), _text(_bytes(entries, 3))
        if not _SHOWN.match(name):
            return
        if digest not in self._names and (5 in entries or entries.get(4)):
            self._names[digest], self._speaking = name, digest
            yield f"{name} (as built before)" if entries.get(4) and " FROM " not in name else name

    def _words(self, entries: dict[int, int | bytes]) -> Iterator[str]:
        digest = _bytes(entries, 1)
        *whole, rest = (self._pending.get(digest, b"") + _bytes(entries, 4)).split(b"\n")
        if len(rest) > _MAX_LINE:
            whole, rest = [*whole, rest], b""
        self._pending[digest] = rest
        yield from self._said(digest, whole)

    def _said(self, digest: bytes, words: list[bytes]) -> Iterator[str]:
        found = [line for each in words if (line := _text(each).rstrip())]
        if found and digest != self._speaking:
            self._speaking = digest
            yield self._names.get(digest, "(another step)")
        yield from found


def _text(data: bytes) -> str:
    """Without what would colour or move in a terminal; of a line that is written anew, its last."""
    text = _ANSI.sub("", data.decode(errors="replace"))
    return text.rstrip("\r").rpartition("\r")[2]


def _bytes(entries: dict[int, int | bytes], number: int) -> bytes:
    value = entries.get(number, b"")
    return value if isinstance(value, bytes) else b""


def _entries(value: int | bytes) -> dict[int, int | bytes]:
    if not isinstance(value, bytes):
        raise ValueError("a message is expected")  # noqa: TRY004 - of the bytes, not of a caller
    return dict(_fields(value))


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Numbers and values of a message: integers, or bytes. Raises ValueError if it is cut off."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        kind = key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        size, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}.get(kind, len(data)), at)
        if at + size > len(data):
            raise ValueError("a field is longer than its message")
        yield key >> 3, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data) and shift < 70:
        value |= (data[at] & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if not data[at - 1] & 0x80:
            return value, at
    raise ValueError("a number has no end")
