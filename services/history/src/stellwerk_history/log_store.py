"""Logs: rows that say how much is certain, files that hold the bytes, chunks that came too early.

A batch is appended to the files, synced, committed, and only then acknowledged. Chunks are placed
by their offset, so repeats and overlaps are harmless; one with a gap before it is parked until
the gap is filled.
"""

import asyncio
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import structlog
from prometheus_client import Counter, Gauge
from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.engine import Connection

from stellwerk.events import RunArchived
from stellwerk_history import rows
from stellwerk_history.closing import BUILD, Log, LogKey, checked_path
from stellwerk_history.logfiles import LogFiles, read_piece
from stellwerk_history.tables import logs, parked_logs
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.prepared import Prepared, Sized

CONSUMER = "history-logs"
MAX_PARKED_BYTES = 32 * 1024 * 1024
SMALL_BYTES = 64 * 1024
DIGESTS_KEPT = 4096

APPENDED = Counter("stellwerk_history_log_bytes", "Log bytes stored")
PARKED = Counter("stellwerk_history_log_parked", "Chunks that came too early")
DROPPED = Counter("stellwerk_history_log_dropped", "Chunks that are left out", ["reason"])
LOCAL = Gauge("stellwerk_history_log_local_bytes", "Stored logs whose files are still here")

# Statements are made once: building one costs as much as running it.
_OF_OWNERS = Sized(lambda owners: select(logs).where(logs.c.owner.in_(owners)))
_OF_OWNER = Prepared(
    select(logs)
    .where(logs.c.owner == bindparam("name"))
    .order_by(logs.c.attempt, logs.c.path, logs.c.stream)
)
_PARKED = Sized(lambda owners: select(parked_logs).where(parked_logs.c.owner.in_(owners)))
_ANY_PARKED = Prepared(select(parked_logs.c.owner).limit(1))
_THIS = and_(
    logs.c.owner == bindparam("of_owner"),
    logs.c.attempt == bindparam("of_attempt"),
    logs.c.stream == bindparam("of_stream"),
)
_CHANGE = Prepared(update(logs).where(_THIS))
_GROW = Prepared(update(logs).where(_THIS, logs.c.closed.is_(False)))
_ADD = Prepared(insert(logs))

T = TypeVar("T")
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some bytes of a log. ``final``: nothing comes behind them."""

    key: LogKey
    offset: int
    data: bytes
    path: str | None = None
    final: bool = False


@dataclass(slots=True)
class _Batch:
    """What a batch of chunks makes of the logs it touches."""

    logs: dict[LogKey, Log]
    parked: list[Chunk]
    park: list[Chunk] = field(default_factory=list)
    unpark: list[Chunk] = field(default_factory=list)
    digests: dict[LogKey, tuple[int, str]] = field(default_factory=dict)


class LogStore:
    """All logs of runs and builds."""

    def __init__(self, db: Database, files: LogFiles, now: Callable[[], float]) -> None:
        self._db, self._files, self._now = db, files, now
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="log-files")
        self._digests: dict[LogKey, tuple[int, str]] = {}
        """Length and SHA-256 of logs that grow, as far as they are known without reading."""

    async def close(self) -> None:
        """Close all files."""
        await self._on_thread(self._files.close)
        self._thread.shutdown()

    async def append(self, chunks: list[Chunk], position: int) -> set[str]:
        """Store a batch, in order; returns the owners whose logs grew."""
        keys = {chunk.key for chunk in chunks}
        batch = await self._db.look(lambda conn: _Batch(_load(conn, keys), _parked(conn, keys)))
        before = dict(batch.logs)
        await self._on_thread(lambda: self._write(batch, chunks))
        failpoint("history.logs_written")
        await self._db.write(lambda tx: _save(tx, batch, before, position, self._now()))
        if len(self._digests) > DIGESTS_KEPT:
            self._digests.clear()
        self._digests |= batch.digests
        return {key.owner for key, each in batch.logs.items() if before.get(key) != each}

    async def of(self, owner: str) -> list[Log]:
        """All logs of one owner, by attempt and stream."""
        return await self._db.look(
            lambda conn: [_log(row) for row in _OF_OWNER.all(conn, {"name": owner})]
        )

    async def get(self, key: LogKey) -> Log | None:
        """One log, None where nothing is known of it."""
        return await self._db.look(lambda conn: _load(conn, [key]).get(key))

    async def read(self, entry: Log, offset: int, limit: int) -> bytes:
        """Bytes of a log whose file is here."""
        size = min(limit, entry.bytes - offset)
        if size <= 0:
            return b""
        if not entry.stored and size <= SMALL_BYTES:  # just written: in memory, no disk is asked
            return read_piece(self._files.path(entry.key), offset, size)
        return await asyncio.to_thread(read_piece, self._files.path(entry.key), offset, size)

    async def digest(self, entry: Log, size: int) -> str:
        """SHA-256 of the first ``size`` bytes of a log whose file is here."""
        known_size, known = self._digests.get(entry.key, (-1, ""))
        if known_size == size:
            return known
        return await self._on_thread(lambda: self._files.digest(entry.key, size))

    def path(self, key: LogKey) -> Any:
        """Where a log's file lies."""
        return self._files.path(key)

    async def release(self, keys: Iterable[LogKey]) -> None:
        """Close the files of logs that will not grow."""
        done = list(keys)
        for key in done:
            self._digests.pop(key, None)

        def work() -> None:
            for key in done:
                self._files.release(key)

        await self._on_thread(work)

    async def local_again(self, entry: Log) -> None:
        """Note that a stored log's file is here again."""
        values = {"local": True, "used_at": self._now()}
        await self._db.write(
            lambda tx: (
                tx.conn.execute(update(logs).where(_is(logs, entry.key)).values(values)) and None
            )
        )

    async def prune(self, limit_bytes: int) -> int:
        """Delete files of stored logs, the least used first, until the rest fits.

        Returns how many.
        """
        here = and_(logs.c.local.is_(True), logs.c.stored.is_(True))
        total = await self._db.read(
            lambda conn: int(conn.scalar(select(func.sum(logs.c.bytes)).where(here)) or 0)
        )
        removed = 0
        while total > limit_bytes:
            oldest = await self._db.read(_least_used)
            if not oldest:
                break
            for entry in oldest:
                if total <= limit_bytes:
                    break
                await self._forget_file(entry)
                total -= entry.bytes
                removed += 1
        LOCAL.set(total)
        return removed

    async def _forget_file(self, entry: Log) -> None:
        """Row first: a row that says "local" must have its file."""
        gone = update(logs).where(_is(logs, entry.key)).values(local=False)
        await self._db.write(lambda tx: tx.conn.execute(gone) and None)
        await self._on_thread(lambda: self._files.remove(entry.key))

    def _write(self, batch: _Batch, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            self._take(batch, chunk)
            early = [each for each in batch.parked if each.key == chunk.key]
            for each in sorted(early, key=lambda each: each.offset):
                if each.offset > batch.logs[chunk.key].bytes:
                    break
                self._take(batch, each)
                batch.parked.remove(each)
                batch.unpark.append(each)
        self._files.sync()
        for key in {chunk.key for chunk in chunks}:
            size = batch.logs[key].bytes
            if (digest := self._files.known_digest(key, size)) is not None:
                batch.digests[key] = size, digest

    def _take(self, batch: _Batch, chunk: Chunk) -> None:
        key = chunk.key
        entry = batch.logs.get(key) or Log(key, checked_path(key.stream, chunk.path))
        batch.logs[key] = entry
        if entry.closed:
            if chunk.offset + len(chunk.data) > entry.bytes:
                DROPPED.labels("closed").inc()
            return
        file = self._files.opened(key, entry.bytes)
        if not file.append(chunk.offset, chunk.data):
            self._park(batch, chunk)
            return
        APPENDED.inc(file.size - entry.bytes)
        entry = replace(entry, bytes=file.size)
        if chunk.final and key.stream == BUILD:
            entry = replace(entry, closed=True, sha256=self._files.digest(key, file.size))
        batch.logs[key] = entry

    @staticmethod
    def _park(batch: _Batch, chunk: Chunk) -> None:
        waiting = [each for each in batch.parked if each.key == chunk.key]
        for each in waiting:
            if each.offset == chunk.offset and len(each.data) >= len(chunk.data):
                return
        if sum(len(each.data) for each in waiting) + len(chunk.data) > MAX_PARKED_BYTES:
            DROPPED.labels("too_early").inc()
            return
        PARKED.inc()
        batch.parked.append(chunk)
        batch.park.append(chunk)

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def seal(conn: Connection, closed: Iterable[Log], now: float) -> None:
    """Write logs as they are when they will not grow; rows that are missing are made."""
    for entry in closed:
        values = _values(entry) | {"used_at": now}
        if _CHANGE.run(conn, values | _this(entry.key)) == 0:
            _ADD.run(conn, values)


def close(conn: Connection, event: RunArchived, now: float) -> None:
    """Seal the logs of an archived attempt; those whose rows were lost are in the object store."""
    known = _load(conn, [LogKey(event.run_id, event.attempt, each.stream) for each in event.logs])
    ended = []
    for each in event.logs:
        key = LogKey(event.run_id, event.attempt, each.stream)
        entry = known.get(key) or Log(key, checked_path(each.stream, each.path), local=False)
        if not entry.closed:
            sealed = replace(entry, bytes=each.bytes, sha256=each.sha256)
            ended.append(replace(sealed, closed=True, stored=True))
    seal(conn, ended, now)


def _least_used(conn: Connection) -> list[Log]:
    here = and_(logs.c.local.is_(True), logs.c.stored.is_(True))
    query = select(logs).where(here).order_by(logs.c.used_at).limit(100)
    return [_log(row) for row in conn.execute(query)]


def _save(tx: Tx, batch: _Batch, before: dict[LogKey, Log], position: int, now: float) -> None:
    new = [entry for key, entry in batch.logs.items() if key not in before]
    changed = [entry for key, entry in batch.logs.items() if before.get(key, entry) != entry]
    _ADD.each(tx.conn, [_values(entry) | {"used_at": now} for entry in new])
    # A log that was closed meanwhile stays as it was closed.
    _GROW.each(tx.conn, [_values(entry) | _this(entry.key) for entry in changed])
    for chunk in batch.unpark:
        here = and_(_is(parked_logs, chunk.key), parked_logs.c.offset == chunk.offset)
        tx.conn.execute(delete(parked_logs).where(here))
    for chunk in batch.park:
        if chunk not in batch.unpark:
            _keep_parked(tx.conn, chunk)
    rows.write_position(tx.conn, CONSUMER, position)


def _keep_parked(conn: Connection, chunk: Chunk) -> None:
    here = and_(_is(parked_logs, chunk.key), parked_logs.c.offset == chunk.offset)
    conn.execute(delete(parked_logs).where(here))
    content = {"offset": chunk.offset, "data": chunk.data, "final": chunk.final}
    conn.execute(insert(parked_logs).values(**_key(chunk.key), **content))


def _load(conn: Connection, keys: Iterable[LogKey]) -> dict[LogKey, Log]:
    wanted = set(keys)
    found: dict[LogKey, Log] = {}
    for some in rows.slices(sorted({key.owner for key in wanted})):
        for row in _OF_OWNERS.all(conn, some):
            entry = _log(row)
            if entry.key in wanted:
                found[entry.key] = entry
    return found


def _parked(conn: Connection, keys: Iterable[LogKey]) -> list[Chunk]:
    if _ANY_PARKED.first(conn, {}) is None:
        return []
    wanted = set(keys)
    found = [
        Chunk(LogKey(row.owner, row.attempt, row.stream), row.offset, row.data, final=row.final)
        for some in rows.slices(sorted({key.owner for key in wanted}))
        for row in _PARKED.all(conn, some)
    ]
    return [chunk for chunk in found if chunk.key in wanted]


def _log(row: Any) -> Log:
    return Log(
        key=LogKey(row.owner, row.attempt, row.stream),
        path=row.path,
        bytes=row.bytes,
        closed=row.closed,
        sha256=row.sha256,
        stored=row.stored,
        local=row.local,
    )


def _values(entry: Log) -> dict[str, Any]:
    return _key(entry.key) | {
        "path": entry.path,
        "bytes": entry.bytes,
        "closed": entry.closed,
        "sha256": entry.sha256,
        "stored": entry.stored,
        "local": entry.local,
    }


def _key(key: LogKey) -> dict[str, Any]:
    return {"owner": key.owner, "attempt": key.attempt, "stream": key.stream}


def _this(key: LogKey) -> dict[str, Any]:
    return {"of_owner": key.owner, "of_attempt": key.attempt, "of_stream": key.stream}


def _is(table: Table, key: LogKey) -> ColumnElement[bool]:
    return and_(
        table.c.owner == key.owner, table.c.attempt == key.attempt, table.c.stream == key.stream
    )
