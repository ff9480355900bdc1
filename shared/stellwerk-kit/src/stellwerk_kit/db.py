"""A service's own transactional store, with its outbox and inbox.

Writes run one after another on one thread; callers that wait at the same time share a commit
(group commit), so durability (``synchronous=FULL``) costs one flush for many. SQLite embedded,
any SQLAlchemy URL otherwise.
"""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    DateTime,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    delete,
    func,
    insert,
    select,
)
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from stellwerk.events import Envelope, Event
from stellwerk_kit import telemetry
from stellwerk_kit.clock import Clock
from stellwerk_kit.dialects import COUNTED, WRITER, insert_once, make_lasting, open_engine, say
from stellwerk_kit.prepared import Prepared
from stellwerk_kit.schema import upgrade

T = TypeVar("T")
MAX_SHARED_COMMIT = 128
LOOK_AGAIN_S = 1.0
"""Pause of the writer, while nobody writes, before it finds out what became of a commit."""
INBOX_KEPT = timedelta(days=45)


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """One event that was committed and not yet acknowledged by the broker."""

    id: int
    lane: str
    subject: str
    type: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Tables:
    """The kit's two tables in a service's metadata, and the statements every event needs."""

    outbox: Table
    inbox: Table
    emit: Prepared = field(init=False)
    see: Prepared = field(init=False)
    """Adds a row of the inbox unless it is there."""
    forget: Prepared = field(init=False)

    def __post_init__(self) -> None:
        """Build the statements once: building them costs more than running them."""
        self.emit = Prepared(insert(self.outbox))
        self.forget = Prepared(delete(self.outbox).where(self.outbox.c.id == bindparam("key")))
        self.speak("sqlite")

    def speak(self, dialect: str) -> None:
        """Use that dialect's words where there is no common one."""
        self.see = Prepared(insert_once(self.inbox, dialect))

    @classmethod
    def define(cls, metadata: MetaData) -> "Tables":
        """Add the tables to ``metadata``, once."""
        if "outbox" in metadata.tables:
            return cls(metadata.tables["outbox"], metadata.tables["inbox"])
        outbox = Table(
            "outbox",
            metadata,
            Column("id", COUNTED, primary_key=True, autoincrement=True),
            Column("lane", String(100), nullable=False),
            Column("subject", String(300), nullable=False),
            Column("type", String(100), nullable=False),
            Column("headers", LargeBinary, nullable=False),
            Column("body", LargeBinary, nullable=False),
            sqlite_autoincrement=True,
        )
        inbox = Table(
            "inbox",
            metadata,
            Column("consumer", String(60), primary_key=True),
            Column("event_id", String(300), primary_key=True),
            Column("seen_at", DateTime(timezone=True), nullable=False, index=True),
            sqlite_with_rowid=False,
        )
        return cls(outbox, inbox)


@dataclass
class Tx:
    """One write transaction: the connection, what it emits, what it has seen."""

    conn: Connection
    tables: Tables
    source: str
    now: datetime
    emitted: list[OutboxRow] = field(default_factory=list)

    def emit(
        self, event: Event, *, sequence: int | None = None, causation_id: str | None = None
    ) -> Envelope:
        """Publish ``event`` after the commit, and again after a crash until the broker has it.

        Raises ProtocolError for an event beyond 256 KiB.
        """
        envelope = Envelope.wrap(
            event, source=self.source, time=self.now, sequence=sequence, causation_id=causation_id
        )
        body, headers = envelope.body(), envelope.headers()
        lane, subject, kind = (
            f"{event.aggregate}/{event.aggregate_id}",
            event.subject(),
            event.type_name(),
        )
        encoded = "\n".join(f"{key}:{text}" for key, text in headers.items()).encode()
        row = {"lane": lane, "subject": subject, "type": kind, "headers": encoded, "body": body}
        number = self.tables.emit.insert(self.conn, row)
        self.emitted.append(OutboxRow(number, lane, subject, kind, headers, body))
        return envelope

    def first_time(self, consumer: str, event_id: str) -> bool:
        """Whether this consumer sees this event for the first time; remembers it."""
        row = {"consumer": consumer, "event_id": event_id, "seen_at": self.now}
        return self.tables.see.run(self.conn, row) == 1


@dataclass(slots=True)
class _Write:
    work: Callable[[Tx], Any]
    loop: asyncio.AbstractEventLoop
    future: "asyncio.Future[Any] | None"
    """None where nobody waits."""
    lasting: bool = True
    result: Any = None
    error: BaseException | None = None

    def resolve(self) -> None:
        if self.future is None or self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)


class Database:
    """See the module's text. Open with :meth:`start`, end with :meth:`close`."""

    def __init__(self, url: str, metadata: MetaData, *, clock: Clock, source: str) -> None:
        self.tables = Tables.define(metadata)
        self._metadata, self._clock, self._source = metadata, clock, source
        self._engine = open_engine(url)
        self.tables.speak(self._engine.dialect.name)
        self._writes: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(4, thread_name_prefix="db-read")
        self._local, self._reading = threading.local(), list[Connection]()
        self._looking: Connection | None = None
        self._last, self._unsure = 0, False
        """The last event that was told of; whether an unanswered commit may have left more."""
        self._thread = threading.Thread(target=self._write_loop, name=WRITER, daemon=True)
        self.on_emitted: Callable[[list[OutboxRow]], None] | None = None
        """Called on the event loop with the rows of each commit, in order (the relay)."""

    async def start(self) -> None:
        """Create what is missing and start the writer. Raises SchemaError."""
        await asyncio.to_thread(upgrade, self._engine, self._metadata)
        newest = select(func.max(self.tables.outbox.c.id))
        self._last = await self.read(lambda conn: conn.scalar(newest)) or 0
        self._thread.start()

    async def close(self) -> None:
        """Finish the writes that were asked for and close."""
        self._writes.put(None)
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._readers.shutdown()
        for conn in self._reading:
            conn.close()
        self._engine.dispose()

    async def write(self, work: Callable[[Tx], T], *, lasting: bool = True) -> T:
        """Run ``work`` in a transaction; returns after its commit.

        An exception of ``work`` undoes its own changes alone and is raised here. ``work`` must
        not be a coroutine and must not keep the transaction. ``lasting`` False is for effects that
        can be had again: the commit does not wait for the disk, and only a power failure undoes it.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        self._writes.put(_Write(work, loop, future, lasting))
        return await future  # a caller that goes away leaves the write as it is

    async def look(self, work: Callable[[Connection], T]) -> T:
        """Like :meth:`read` for a few rows by their keys, read by prepared statements.

        SQLite answers within the time it takes to hand them over to another thread, so it is
        asked right here; another database is asked like everywhere.
        """
        if self._engine.dialect.name != "sqlite":
            return await self.read(work)
        if self._looking is None:
            self._looking = self._engine.connect()
            self._reading.append(self._looking)
        # Begun and ended past Core, whose transaction costs more than the rows.
        say(self._looking, "BEGIN")
        try:
            return work(self._looking)
        finally:
            say(self._looking, "COMMIT")

    async def read(self, work: Callable[[Connection], T]) -> T:
        """Run ``work`` with a connection that sees the last commit.

        Once more where the connection turns out to be lost: a server was started anew.
        """

        def run() -> T:
            conn = getattr(self._local, "conn", None)
            if conn is None:
                conn = self._local.conn = self._engine.connect()
                self._reading.append(conn)
            try:
                with conn.begin():
                    return work(conn)
            except DBAPIError as error:
                if not error.connection_invalidated:
                    raise
            with conn.begin():
                return work(conn)

        return await asyncio.get_running_loop().run_in_executor(self._readers, run)

    async def outbox_rows(self, after: int, limit: int) -> list[OutboxRow]:
        """Unacknowledged events in order."""
        return await self.read(lambda conn: self._outbox(conn, after, limit))

    async def outbox_done(self, ids: list[int]) -> None:
        """Forget events that the broker has."""
        keys = [{"key": number} for number in ids]
        await self.write(lambda tx: self.tables.forget.each(tx.conn, keys), lasting=False)

    async def prune_inbox(self) -> None:
        """Forget events seen more than 45 days ago: longer than the stream keeps them."""
        inbox = self.tables.inbox
        await self.write(
            lambda tx: (
                tx.conn.execute(delete(inbox).where(inbox.c.seen_at < tx.now - INBOX_KEPT)) and None
            )
        )

    def _write_loop(self) -> None:
        with self._engine.connect() as conn:
            following = self._writes.get()
            while following is not None:
                following = self._commit_group(conn, following)

    def _commit_group(self, conn: Connection, first: _Write) -> _Write | None:
        """Run ``first`` and all that wait behind it, commit once; what comes next, None to stop.

        What shall last is not committed with what need not. Where the answer to a commit was lost,
        the server may have made it: the next transaction tells of its events before its own.
        """
        group, emitted, left = [first], list[OutboxRow](), list[_Write | None]()
        started, asked = time.perf_counter(), False
        try:
            make_lasting(conn, lasting=first.lasting)  # may have to connect anew, and fail
            with conn.begin():
                if self._unsure:
                    emitted += self._outbox(conn, self._last)
                emitted += self._work(conn, first)  # its failure undoes all there is: itself
                while len(group) < MAX_SHARED_COMMIT:
                    try:
                        following = self._writes.get_nowait()
                    except queue.Empty:
                        break
                    if following is None or (following.lasting and not first.lasting):
                        left.append(following)
                        break
                    group.append(following)
                    emitted += self._run(conn, following)
                asked = True
            self._unsure = False
            self._last = emitted[-1].id if emitted else self._last
        except BaseException as error:  # noqa: BLE001 - whoever waits must hear of it
            emitted, self._unsure = [], self._unsure or asked
            for write in group:
                write.error = write.error or error
        telemetry.COMMIT_SECONDS.observe(time.perf_counter() - started)
        telemetry.COMMIT_SIZE.observe(len(group))
        first.loop.call_soon_threadsafe(self._committed, group, emitted)
        return left[0] if left else self._next(first.loop)

    def _next(self, loop: asyncio.AbstractEventLoop) -> _Write | None:
        """What is asked for next; nothing at all, in time, where a commit must be looked after."""
        try:
            return self._writes.get(timeout=LOOK_AGAIN_S if self._unsure else None)
        except queue.Empty:
            return _Write(lambda _: None, loop, None)

    def _outbox(self, conn: Connection, after: int, limit: int | None = None) -> list[OutboxRow]:
        table = self.tables.outbox
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit)
        return [
            OutboxRow(row.id, row.lane, row.subject, row.type, _headers(row.headers), row.body)
            for row in conn.execute(query)
        ]

    def _run(self, conn: Connection, write: _Write) -> list[OutboxRow]:
        """Run one of several writes: its failure leaves the others as they are."""
        say(conn, "SAVEPOINT one")
        emitted: list[OutboxRow] = []
        try:
            emitted = self._work(conn, write)
        except BaseException as error:  # noqa: BLE001 - raised to the caller in write()
            say(conn, "ROLLBACK TO SAVEPOINT one")
            write.error = error
        say(conn, "RELEASE SAVEPOINT one")
        return emitted

    def _work(self, conn: Connection, write: _Write) -> list[OutboxRow]:
        tx = Tx(conn, self.tables, self._source, self._clock.now())
        write.result = write.work(tx)
        return tx.emitted

    def _committed(self, group: list[_Write], emitted: list[OutboxRow]) -> None:
        if emitted and self.on_emitted is not None:
            self.on_emitted(emitted)
        for write in group:
            write.resolve()


def _headers(encoded: bytes) -> dict[str, str]:
    pairs = (line.split(":", 1) for line in encoded.decode().split("\n"))
    return {pair[0]: pair[1] for pair in pairs}
