"""Records of runs as rows: metrics, the values leaderboards are made of, files, labels."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import and_, bindparam, delete, func, insert, select
from sqlalchemy.engine import Connection

from stellwerk.api import MetricPoint
from stellwerk_history import rows
from stellwerk_history.progress import Counts, newest_attempts, read_counts, write_counts
from stellwerk_history.records import Batch, MalformedBatchError, parse_batch, read_batch
from stellwerk_history.tables import attempts, labels, latest, live_files, metrics, runs
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.prepared import Prepared

CONSUMER = "history-metrics"
MAX_LABELS = 1000

_COLUMNS = tuple(column.name for column in metrics.columns)
_ADD = Prepared(insert(metrics))

MALFORMED = Counter("stellwerk_history_malformed", "Records that are left out", ["what"])

log = structlog.get_logger()

_LIVE_FILES = Prepared(
    select(live_files)
    .where(live_files.c.run_id == bindparam("run"), live_files.c.attempt == bindparam("of_attempt"))
    .order_by(live_files.c.path)
)


@dataclass(frozen=True, slots=True)
class Message:
    """A batch as it came."""

    run_id: str
    attempt: int
    body: bytes


@dataclass(slots=True)
class _Attempt:
    """What the messages of one attempt add; ``counts`` are the records of each writer so far."""

    counts: Counts
    batches: list[Batch] = field(default_factory=list)


class MetricStore:
    """Transactions on what runs log."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def add(self, messages: list[Message], position: int) -> set[str]:
        """Store the records that are new; returns the runs they are of."""

        def work(tx: Tx) -> set[str]:
            found = _read(tx.conn, messages)
            _write_metrics(tx.conn, found)
            for (run_id, attempt), content in found.items():
                write_counts(tx.conn, run_id, attempt, content.counts)
                _write_files(tx.conn, run_id, attempt, content)
                _write_labels(tx.conn, run_id, content)
            _write_latest(tx.conn, found)
            rows.write_position(tx.conn, CONSUMER, position)
            return {run_id for run_id, _ in found}

        return await self._db.write(work)

    async def position(self) -> int:
        """How far the record stream has been read."""
        return await self._db.look(lambda conn: rows.read_position(conn, CONSUMER))

    async def records(self, run_id: str, attempt: int) -> int:
        """How many records of an attempt have arrived."""
        here = and_(attempts.c.run_id == run_id, attempts.c.attempt == attempt)
        query = select(attempts.c.records).where(here)
        return await self._db.read(lambda conn: int(conn.scalar(query) or 0))

    async def points(
        self, run_id: str, attempt: int, name: str | None, after: int, limit: int
    ) -> list[MetricPoint]:
        """Values of an attempt in the order they were logged, after a sequence."""
        query = (
            select(metrics)
            .where(metrics.c.run_id == run_id, metrics.c.attempt == attempt)
            .where(metrics.c.sequence > after)
            .order_by(metrics.c.sequence)
            .limit(limit)
        )
        if name is not None:
            query = query.where(metrics.c.name == name)

        def work(conn: Connection) -> list[MetricPoint]:
            return [_point(row) for row in conn.execute(query)]

        return await self._db.read(work)

    async def newest_attempt(self, run_id: str) -> int:
        """The latest attempt that has logged anything, 0 if none has."""
        return await self._db.read(lambda conn: newest_attempts(conn, [run_id]).get(run_id, 0))

    async def live_files(self, run_id: str, attempt: int) -> dict[str, tuple[int, str]]:
        """Files an attempt gave so far: path → size and digest."""
        of = {"run": run_id, "of_attempt": attempt}
        return await self._db.look(
            lambda conn: {row.path: (row.size, row.sha256) for row in _LIVE_FILES.all(conn, of)}
        )


def _read(conn: Connection, messages: list[Message]) -> dict[tuple[str, int], _Attempt]:
    """New records by attempt; a malformed message is counted and left out."""
    found: dict[tuple[str, int], _Attempt] = {}
    for message in messages:
        key = (message.run_id, message.attempt)
        if key not in found:
            found[key] = _Attempt(read_counts(conn, *key))
        content = found[key]
        try:
            given = parse_batch(message.body)
        except MalformedBatchError as error:
            MALFORMED.labels("batch").inc()
            log.warning("batch left out", action="batch_malformed", run_id=key[0], error=str(error))
            continue
        known = content.counts.get(given.writer, 0)
        batch = read_batch(given, known, sum(content.counts.values()) - known)
        if batch.malformed:
            MALFORMED.labels("record").inc(batch.malformed)
        content.counts[given.writer] = batch.end
        content.batches.append(batch)
    return found


def _write_metrics(conn: Connection, found: dict[tuple[str, int], _Attempt]) -> None:
    values = [
        (run_id, attempt, *row)
        for (run_id, attempt), content in found.items()
        for batch in content.batches
        for row in batch.metrics
    ]
    if values:
        _ADD.each_row(conn, _COLUMNS, values)


def _write_files(conn: Connection, run_id: str, attempt: int, content: _Attempt) -> None:
    files = {path: file for batch in content.batches for path, file in batch.files.items()}
    here = and_(live_files.c.run_id == run_id, live_files.c.attempt == attempt)
    for some in rows.slices(files):
        conn.execute(delete(live_files).where(here, live_files.c.path.in_(some)))
        values = [
            {
                "run_id": run_id,
                "attempt": attempt,
                "path": path,
                "size": files[path][0],
                "sha256": files[path][1],
            }
            for path in some
        ]
        conn.execute(insert(live_files), values)


def _write_labels(conn: Connection, run_id: str, content: _Attempt) -> None:
    tags: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    for batch in content.batches:
        tags |= batch.tags
        for name, value in batch.properties.items():
            properties.setdefault(name, value)
    if not tags and not properties:
        return
    query = select(func.count()).select_from(labels).where(labels.c.run_id == run_id)
    if int(conn.scalar(query) or 0) + len(tags) + len(properties) > MAX_LABELS:
        MALFORMED.labels("too_many_labels").inc()
        return
    rows.write_labels(conn, run_id, rows.TAG, tags, replace=True)
    refused = rows.write_labels(conn, run_id, rows.PROPERTY, properties, replace=False)
    if refused:
        MALFORMED.labels("property_changed").inc(refused)


def _write_latest(conn: Connection, found: dict[tuple[str, int], _Attempt]) -> None:
    """The last number of each name, of the latest attempt only."""
    for (run_id, attempt), content in sorted(found.items()):
        values: dict[str, float | None] = {}
        for batch in content.batches:
            values |= batch.latest
        numbers = {name: value for name, value in values.items() if value is not None}
        if not values:
            continue
        run = conn.execute(
            select(runs.c.experiment, runs.c.position, runs.c.attempt).where(
                runs.c.run_id == run_id
            )
        ).first()
        newest = conn.scalar(select(func.max(latest.c.attempt)).where(latest.c.run_id == run_id))
        if attempt < max(run.attempt if run else 0, int(newest or 0)):
            continue
        place = {"experiment": run.experiment, "position": run.position} if run else {}
        _replace_latest(conn, run_id, attempt, values, numbers, place)


def _replace_latest(
    conn: Connection,
    run_id: str,
    attempt: int,
    values: Mapping[str, float | None],
    numbers: dict[str, float],
    place: dict[str, Any],
) -> None:
    mine = latest.c.run_id == run_id
    conn.execute(delete(latest).where(mine, latest.c.attempt < attempt))
    for some in rows.slices(values):
        conn.execute(delete(latest).where(mine, latest.c.name.in_(some)))
        new = [
            {"run_id": run_id, "name": name, "attempt": attempt, "value": numbers[name], **place}
            for name in some
            if name in numbers
        ]
        if new:
            conn.execute(insert(latest), new)


def _point(row: Any) -> MetricPoint:
    return MetricPoint(
        name=row.name,
        kind=row.kind,
        value=json.loads(row.value),
        step=row.step,
        time=datetime.fromtimestamp(row.time, UTC),
        sequence=row.sequence,
    )
