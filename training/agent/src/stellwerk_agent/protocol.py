"""Record format: what a run's processes write to the run's socket, one JSON object a line.

The socket is a Unix stream socket at STELLWERK_RUN_SOCKET. A writer connects, sends lines of at
most 256 KiB that end in a newline, and gets no answer. Any process of the run may connect, in any
number. Lines of one connection keep their order.

Every record has `k`, its kind, and mostly `ts`, seconds since the epoch as a float:

    {"k":"metric","n":<name>,"t":"scalar","v":<scalar>,"s":<step int or null>,"ts":...,"d":<text>}
    {"k":"metric","n":<name>,"t":"list","v":[<scalar>, ...],"s":null,"ts":...}
    {"k":"metric","n":<name>,"t":"row","v":{<column>: <scalar>, ...},"s":null,"ts":...}
    {"k":"metric","n":<name>,"t":"table","v":{<column>: [<scalar>, ...], ...},"s":null,"ts":...}
    {"k":"image","n":<metric name>,"f":<file name under uploads>,"ts":...}
    {"k":"artifact","n":<metric name>,"f":<JSON file of a plot under uploads>,"ts":...}
    {"k":"file","n":<file name in the run>,"p":<path under uploads>,"ts":...}
    {"k":"tag","n":<key>,"v":<text or null>,"ts":...}
    {"k":"property","n":<key>,"v":<text or null>,"ts":...}
    {"k":"mark","pid":<process>,"imports":<monotonic seconds>,"first_step":<same>,"ts":...}
    {"k":"dropped","by":"agent"|"shim","records":<count>,"why":<text>,"ts":...}

A scalar is a number, a text, true, false or null. NaN and the infinities, which JSON lacks, travel
as the texts "NaN", "Infinity" and "-Infinity". `d`, a description, is left out when empty.
A record of kind `file`, `image` or `artifact` is sent after the file is complete under
STELLWERK_UPLOADS_DIR.
`dropped` marks a gap: `agent` could not reach the socket, `shim` refused what it was sent.
A reader ignores kinds and fields it does not know.
"""

import json
import time
from json.encoder import encode_basestring_ascii

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Union

LINE_BYTES = 256 * 1024
"""Longest record, without its newline."""

_FLOATS = frozenset(["float16", "float32", "float64"])
_INTEGERS = frozenset(
    "int8 int16 int32 int64 uint8 uint16 uint32 uint64 longlong ulonglong intc uintc".split()
)
_LARGEST = 2**63


def scalar(value: "Any") -> "Union[bool, int, float, str, None]":
    """Return `value` as it is stored: by exact type; anything unknown becomes its repr."""
    kind = type(value)
    if kind is float:
        return value if value - value == 0 else _not_finite(value)
    if kind is int:
        return value if -_LARGEST <= value < _LARGEST else _huge(value)
    if value is None or kind is bool:
        return value  # type: ignore[no-any-return]
    if kind is str:
        return clean_text(value)
    if kind.__module__ == "numpy":
        if kind.__name__ in _FLOATS:
            return scalar(float(value))
        if kind.__name__ in _INTEGERS:
            return int(value)
        if kind.__name__ in ("bool_", "bool"):
            return bool(value)
    return repr(value)


def plain(value: "Any") -> "Any":
    """Return what JSON lacks as something it has: arrays as lists, their scalars as numbers."""
    return value.tolist() if hasattr(value, "tolist") else scalar(value)


def clean_text(text: str) -> str:
    """Return `text` without lone surrogates, which many JSON readers refuse."""
    return text.encode("utf-8", "replace").decode("utf-8")


def scalar_line(name: str, value: "Any", step: "Optional[int]", description: str) -> bytes:
    """Return the line for one logged number; built by hand, this is the path training waits for."""
    stored = scalar(value)
    text = repr(stored) if type(stored) in (int, float) else json.dumps(stored)
    return (
        '{"k":"metric","n":%s,"t":"scalar","v":%s,"s":%s,"ts":%.6f%s}\n'
        % (
            encode_basestring_ascii(name),
            text,
            "null" if step is None else int(step),
            time.time(),
            ',"d":' + encode_basestring_ascii(description) if description else "",
        )
    ).encode("ascii")


def line(kind: str, **fields: "Any") -> bytes:
    """Return the line for a record of `kind`, stamped with the time."""
    record: "Dict[str, Any]" = {"k": kind, "ts": round(time.time(), 6)}
    record.update(fields)
    return json.dumps(record, separators=(",", ":")).encode("ascii") + b"\n"


def _not_finite(value: float) -> str:
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def _huge(value: int) -> "Union[float, str]":
    """Return the nearest float: readers need not have integers beyond 64 bits."""
    try:
        return float(value)
    except OverflowError:
        return "Infinity" if value > 0 else "-Infinity"
