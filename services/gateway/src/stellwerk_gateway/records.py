"""What clients log into runs: values and files, published as an executor publishes a run's own.

A batch is on the broker's disk before the client hears of it; repeats change nothing, by message
id at first and by the writer's own numbers for ever.
"""

import json
from collections.abc import Iterator
from typing import Any

from stellwerk import subjects
from stellwerk.api import RunView
from stellwerk.errors import ConflictError, ServiceUnavailableError, UserError
from stellwerk.manifest import safe_path
from stellwerk.run_records import FileRecord, MetricRecord, RecordsRequest, RecordsView
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.downloads import run_files
from stellwerk_gateway.platform import Platform
from stellwerk_gateway.problems import HttpError
from stellwerk_gateway.replies import SeenReply

STREAM = "SW_METRICS"
MAX_BATCH_BYTES = 400 * 1024
SEEN_WAIT_S = 2.0
FIRST_ATTEMPT = 1

Entry = tuple[int, str]
"""Size and digest of a file."""


async def add_records(platform: Platform, run: RunView, request: RecordsRequest) -> RecordsView:
    """Publish a batch and wait a moment until readers see it.

    Raises UserError ``file.path``, ``blob.missing``; ConflictError ``file.exists``, ``run.ended``;
    HttpError 413; ServiceUnavailableError when the broker does not acknowledge.
    """
    files = _files(request)
    if files:
        await _check_files(platform, run, files)
    attempt = max(FIRST_ATTEMPT, run.attempt)
    end = request.first + len(request.records)
    now = platform.clock.now().timestamp()
    content = {
        "writer": request.writer,
        "first": request.first,
        "records": [_as_sent(record.model_dump(exclude_defaults=True), now)
                    for record in request.records],
    }  # fmt: skip
    body = json.dumps(content, separators=(",", ":")).encode()
    if len(body) > MAX_BATCH_BYTES:
        raise HttpError(
            413,
            "records.too_large",
            f"The records are {len(body)} bytes; the limit is {MAX_BATCH_BYTES}. Send fewer at a "
            "time.",
        )
    numbers = f"{request.writer}/{request.first}-{end}"
    headers = {"Nats-Msg-Id": f"metric/{run.run_id}/{attempt}/{numbers}"}
    subject = subjects.metric(run.run_id, attempt)
    done = await platform.bus.publish_raw(subject, body, headers)
    return RecordsView(next=end, seen=await _seen(platform, run.run_id, done.sequence, SEEN_WAIT_S))


async def all_seen(platform: Platform, run: RunView, wait_s: float) -> bool:
    """Whether readers see every record that the broker has of a run."""
    subject = subjects.metric(run.run_id, max(FIRST_ATTEMPT, run.attempt))
    last = await platform.bus.last_sequence(STREAM, subject)
    # The stream forgets what history has stored.
    return last is None or await _seen(platform, run.run_id, last, wait_s)


async def _seen(platform: Platform, run_id: str, position: int, wait_s: float) -> bool:
    fields: dict[str, Any] = {"run_id": run_id, "position": position, "wait_s": wait_s}
    try:
        reply = await platform.ask("history", "records-seen", SeenReply, timeout_s=wait_s + 1,
                                   **fields)  # fmt: skip
    except ServiceUnavailableError:
        return False
    return reply.seen


def _files(request: RecordsRequest) -> dict[str, Entry]:
    """Path → content of the files that a batch names."""
    found: dict[str, Entry] = {}
    for index, record in enumerate(request.records):
        if isinstance(record, MetricRecord):
            continue
        name, letter = (record.n, "n") if isinstance(record, FileRecord) else (record.f, "f")
        field = f"records[{index}].{letter}"
        try:
            path = safe_path(name)
        except ValueError as error:
            raise UserError(f"{field}: {error}", code="file.path", field=field) from error
        content = (record.size, record.sha256)
        if found.setdefault(path, content) != content:
            raise _exists(path, field)
    return found


async def _check_files(platform: Platform, run: RunView, files: dict[str, Entry]) -> None:
    if run.status in TERMINAL:
        raise ConflictError(
            f"The run is {run.status}: its files are sealed. Give files to a run before it ends.",
            code="run.ended",
            field="records",
        )
    sizes = await platform.objects.sizes(digest for _, digest in files.values())
    for path, (size, digest) in files.items():
        if sizes[digest] != size:
            raise UserError(
                f"records: the content of {path!r} is not uploaded, or not of that size. "
                "POST /api/v1/blobs says where to put it.",
                code="blob.missing",
                field="records",
            )
    present = {file.path: file async for file in run_files(platform, run.run_id)}
    folders = {parent for path in (*present, *files) for parent in _parents(path)}
    for path, content in files.items():
        file = present.get(path)
        changed = file is not None and content != (file.size, file.sha256)
        if changed or path in folders or any(parent in present for parent in _parents(path)):
            raise _exists(path, "records")


def _parents(path: str) -> Iterator[str]:
    while path := path.rpartition("/")[0]:
        yield path


def _exists(path: str, field: str) -> ConflictError:
    return ConflictError(
        f"{field}: the run has a file {path!r} already, and files of a run never change; choose "
        "another name.",
        code="file.exists",
        field=field,
    )


def _as_sent(record: dict[str, Any], now: float) -> dict[str, Any]:
    """The record as an executor would publish it."""
    record.setdefault("ts", now)
    if record["k"] == "metric":
        record.setdefault("t", "scalar")
        record.setdefault("s", None)
    if record["k"] == "file":
        record["f"] = record["n"]
    return record
