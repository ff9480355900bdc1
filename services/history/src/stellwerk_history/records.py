"""What a run logged: a batch of its records as rows. Pure.

The forms of records are in ``docs/run-protocol.md``. A record that breaks them is counted and
left out: a run's own data must never stop its history. Each writer of a run (its executor, every
client that logs into it) numbers its records from 0; history puts them in one order, as they come.
"""

import json
import math
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from stellwerk.ids import is_id
from stellwerk.manifest import safe_path

KINDS = frozenset({"scalar", "list", "row", "table"})
MAX_NAME = 255
MAX_LABEL = 10_000
MAX_RECORDS = 20_000
MAX_INTEGER = 2**63
MAX_FIRST = 2**31
EXECUTOR = ""
"""The writer that sends no name."""

MetricRow = tuple[int, str, str, str, int | None, float]
"""sequence, name, kind, value as JSON, step, seconds since the epoch"""


class MalformedBatchError(ValueError):
    """The message is no batch of records."""


@dataclass(frozen=True, slots=True)
class Content:
    """A message that has the form of a batch."""

    first: int
    records: list[Any]
    writer: str = EXECUTOR


@dataclass(slots=True)
class Batch:
    """The new records of one message. ``end`` is the number of its writer's next record."""

    end: int
    metrics: list[MetricRow] = field(default_factory=list)
    latest: dict[str, float | None] = field(default_factory=dict)
    files: dict[str, tuple[int, str]] = field(default_factory=dict)
    tags: dict[str, str | None] = field(default_factory=dict)
    properties: dict[str, str | None] = field(default_factory=dict)
    malformed: int = 0


def parse_batch(body: bytes) -> Content:
    """What a message says. Raises MalformedBatchError."""
    try:
        content = json.loads(body)
        first, records = content["first"], content["records"]
        writer = content.get("writer", EXECUTOR)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedBatchError('a batch is {"first": number, "records": [...]}') from error
    if type(first) is not int or not 0 <= first < MAX_FIRST or not isinstance(records, list):
        raise MalformedBatchError(f"first is {str(first)[:40]!r} or records is no list")
    if len(records) > MAX_RECORDS:
        raise MalformedBatchError(f"{len(records)} records; the limit is {MAX_RECORDS}")
    if writer != EXECUTOR and not (isinstance(writer, str) and is_id(writer)):
        raise MalformedBatchError(f"writer is {str(writer)[:40]!r}, which is no id")
    return Content(first, records, writer)


def read_batch(content: Content, known: int, before: int = 0) -> Batch:
    """The records numbered ``known`` or higher; ``before``: records of the run's other writers."""
    batch = Batch(end=max(known, content.first + len(content.records)))
    for number, record in enumerate(content.records, content.first):
        if number < known:
            continue
        if not (isinstance(record, dict) and _take(batch, before + number, record)):
            batch.malformed += 1
    return batch


def _take(batch: Batch, number: int, record: dict[str, Any]) -> bool:
    match record.get("k"):
        case "metric":
            return _metric(batch, number, record)
        case "image" | "artifact":
            return _artifact(batch, number, record)
        case "file":
            return _file(batch, record.get("n"), record)
        case "tag":
            return _label(batch.tags, record)
        case "property":
            return _label(batch.properties, record)
        case _:
            return True


def _metric(batch: Batch, number: int, record: dict[str, Any]) -> bool:
    name, kind, value, step = record.get("n"), record.get("t"), record.get("v"), record.get("s")
    if not _is_text(name, MAX_NAME) or kind not in KINDS or not _fits(kind, value):
        return False
    if step is not None and (type(step) is not int or abs(step) >= MAX_INTEGER):
        return False
    try:
        text = _text(value)
    except (ValueError, RecursionError):
        return False
    batch.metrics.append((number + 1, name, kind, text, step, _time(record)))
    if kind == "scalar":
        batch.latest[name] = _number(value)
    return True


def _artifact(batch: Batch, number: int, record: dict[str, Any]) -> bool:
    name, file = record.get("n"), record.get("f")
    if not _is_text(name, MAX_NAME) or not _file(batch, file, record):
        return False
    batch.metrics.append((number + 1, name, record["k"], json.dumps(file), None, _time(record)))
    return True


def _file(batch: Batch, name: object, record: dict[str, Any]) -> bool:
    size, digest = record.get("size"), record.get("sha256")
    if not isinstance(name, str) or not isinstance(digest, str) or len(digest) != 64:
        return False
    if type(size) is not int or not 0 <= size < MAX_INTEGER:
        return False
    try:
        path = safe_path(name)
    except ValueError:
        return False
    batch.files[path] = (size, digest)
    return True


def _label(labels: dict[str, str | None], record: dict[str, Any]) -> bool:
    name, value = record.get("n"), record.get("v")
    if not _is_text(name, MAX_NAME) or not (value is None or _is_text(value, MAX_LABEL)):
        return False
    labels[name] = value
    return True


def _fits(kind: str, value: object) -> bool:
    if kind == "scalar":
        return not isinstance(value, dict | list)
    return isinstance(value, list if kind == "list" else dict)


def _is_text(text: object, limit: int) -> TypeGuard[str]:
    """Whether ``text`` can be stored: lone surrogates are no UTF-8, U+0000 ends texts early."""
    if not isinstance(text, str) or len(text) > limit or "\x00" in text:
        return False
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _text(value: object) -> str:
    """JSON as it is stored; numbers that JSON lacks and broken texts raise ValueError."""
    if type(value) is float and math.isfinite(value):
        return repr(value)
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    text.encode()
    return text


def _number(value: object) -> float | None:
    """A value that leaderboards can order by; None for texts, booleans and what is not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _time(record: dict[str, Any]) -> float:
    """Seconds since the epoch, 0 where the record has none that a date could show."""
    moment = record.get("ts")
    if isinstance(moment, bool) or not isinstance(moment, int | float):
        return 0.0
    return float(moment) if 0 <= moment < 250_000_000_000 else 0.0
