"""A service's store is the same on SQLite and on PostgreSQL; PostgreSQL may go away and come back."""

import asyncio
import json
import os
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pydantic import ValidationError
from sqlalchemy import (
    JSON,
    Column,
    DateTime,
    Integer,
    MetaData,
    Row,
    String,
    Table,
    bindparam,
    func,
    insert,
    make_url,
    select,
    text,
)
from sqlalchemy.exc import DBAPIError, OperationalError

from stellwerk.events import RunCancelRequested
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.db import Database, OutboxRow, Tx
from stellwerk_kit.dialects import open_engine
from stellwerk_kit.prepared import Prepared
from stellwerk_kit.rpc import encode_error
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing.postgresql import PostgresServer
from stellwerk_kit.testing.waiting import wait_until

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("name", String(100), primary_key=True),
    Column("number", Integer),
    Column("at", DateTime(timezone=True)),
    Column("content", JSON),
)
NAMED = Prepared(select(things).where(things.c.name == bindparam("name")))
COUNT = select(func.count()).select_from(things)


@pytest_asyncio.fixture
async def db(store_url: str) -> AsyncIterator[Database]:
    database = Database(store_url, metadata, clock=SystemClock(), source="/t")
    await database.start()
    yield database
    await database.close()


def _add(name: str, **values: Any) -> Any:
    return lambda tx: tx.conn.execute(insert(things).values(name=name, **values)) and None


def _count(conn: Any) -> int:
    return int(conn.scalar(COUNT))


async def test_values_come_back_as_they_went(db: Database) -> None:
    east = datetime(2026, 1, 2, 3, 0, tzinfo=timezone(timedelta(hours=5)))
    content = {"a": [1, None], "b": "\u20ac'%s\\"}
    await db.write(_add("%(x)s :y ?", number=2**62, at=east.astimezone(UTC), content=content))
    found = await db.look(lambda conn: NAMED.first(conn, {"name": "%(x)s :y ?"}))
    core: Row[Any] = await db.read(lambda conn: conn.execute(select(things)).one())
    for row in (found, core):
        assert row is not None
        assert (row.number, row.content) == (2**62, content)
        assert row.at.replace(tzinfo=UTC) == east
    few = select(things.c.name).where(things.c.number > 2**40)
    assert await db.read(lambda conn: conn.scalars(few).all()) == ["%(x)s :y ?"]
    total = await db.read(lambda conn: conn.scalar(select(func.sum(things.c.number))))
    assert (total, type(total)) == (2**62, int)


async def test_an_event_is_seen_once_and_what_is_emitted_is_numbered(db: Database) -> None:
    def see(tx: Tx) -> tuple[bool, int]:
        first = tx.first_time("consumer", "event")
        tx.emit(RunCancelRequested(run_id="r"))
        return first, tx.emitted[0].id

    seen = await asyncio.gather(*(db.write(see) for _ in range(5)))
    assert [first for first, _ in seen] == [True, False, False, False, False]
    rows = await db.outbox_rows(0, 100)
    assert [row.id for row in rows] == sorted(number for _, number in seen)
    await db.outbox_done([rows[0].id])
    assert await db.outbox_rows(0, 100) == rows[1:]


async def test_a_reader_sees_one_moment(db: Database) -> None:
    """What is committed between two of its statements is not there."""
    loop, began, go_on = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()

    def twice(conn: Any) -> tuple[int, int]:
        before = _count(conn)
        loop.call_soon_threadsafe(began.set)
        asyncio.run_coroutine_threadsafe(go_on.wait(), loop).result()
        return before, _count(conn)

    reading = asyncio.ensure_future(db.read(twice))
    await began.wait()
    await db.write(_add("a"))
    go_on.set()
    assert await reading == (0, 0)
    assert await db.read(_count) == 1


async def test_two_writers_take_turns(db: Database, store_url: str) -> None:
    """A second process on one store, as when the old one still ends: no update is lost."""
    other = Database(store_url, metadata, clock=SystemClock(), source="/t")
    await other.start()
    await db.write(_add("n", number=0))

    def increase(tx: Tx) -> None:
        number = tx.conn.scalar(select(things.c.number)) or 0
        tx.conn.execute(things.update().values(number=number + 1))

    await asyncio.gather(*(each.write(increase) for each in (db, other) for _ in range(200)))
    assert await db.read(lambda conn: conn.scalar(select(things.c.number))) == 400
    await other.close()


async def test_a_server_that_was_killed_is_found_again(postgres_server: PostgresServer) -> None:
    url = postgres_server.create("killed")
    db = Database(url, metadata, clock=SystemClock(), source="/t")
    await db.start()
    await db.write(_add("before"))
    assert await asyncio.gather(*(db.read(_count) for _ in range(8))) == [1] * 8
    postgres_server.kill()
    results = await asyncio.gather(
        *(db.write(_add(f"away {n}")) for n in range(3)), db.read(_count), return_exceptions=True
    )
    for error in results:
        assert isinstance(error, OperationalError), error
        told = json.loads(encode_error(error).body)
        assert (told["kind"], told["code"]) == ("unavailable", "store.unavailable")
        assert postgres_server.password not in str(error)
    postgres_server.start()
    assert await asyncio.gather(*(db.read(_count) for _ in range(8))) == [1] * 8

    async def writes() -> bool:
        try:
            await db.write(_add("after"))
        except OperationalError:
            return False
        return True

    await wait_until(writes)
    assert await db.read(_count) == 2
    await db.close()


class LostAnswer:
    """Stands between a store and its server; once armed, it loses the answer to a commit."""

    def __init__(self, server: PostgresServer) -> None:
        self._upstream, self.armed = server.port, False
        self._connections: list[asyncio.Future[Any]] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """After its clients have gone."""
        self._server.close()
        await self._server.wait_closed()
        await asyncio.gather(*self._connections)

    async def _serve(self, from_client: Any, to_client: Any) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self._upstream)
        lost = asyncio.Event()

        async def forward() -> None:
            while data := await from_client.read(65536):
                if self.armed and b"COMMIT\0" in data:
                    self.armed = False
                    lost.set()
                to_server.write(data)
            to_server.close()

        async def back() -> None:
            while data := await from_server.read(65536):
                if lost.is_set():  # it is the commit's: the server has made it
                    break
                to_client.write(data)
            to_client.close()

        ended = asyncio.gather(forward(), back(), return_exceptions=True)
        self._connections.append(ended)
        await ended
        await asyncio.gather(to_client.wait_closed(), to_server.wait_closed())


async def test_events_of_a_commit_whose_answer_was_lost_are_told_in_order(
    postgres_server: PostgresServer, tmp_path: Path
) -> None:
    between, passfile = LostAnswer(postgres_server), tmp_path / "passfile"
    url = make_url(postgres_server.create("lost_answer"))
    port = await between.start()
    passfile.touch(0o600)
    passfile.write_text(f"127.0.0.1:{port}:*:{url.username}:{postgres_server.password}\n")
    through = url.set(port=port).update_query_dict({"passfile": str(passfile)})
    db = Database(through.render_as_string(), metadata, clock=SystemClock(), source="/t")
    told: list[OutboxRow] = []
    db.on_emitted = told.extend
    await db.start()

    def cancel(event_id: str) -> Callable[[Tx], bool]:
        def work(tx: Tx) -> bool:
            if tx.first_time("consumer", event_id):
                tx.emit(RunCancelRequested(run_id=event_id))
                return True
            return False

        return work

    assert await db.write(cancel("before"))
    between.armed = True
    with pytest.raises(OperationalError):
        await db.write(cancel("lost"))
    assert not await db.write(cancel("lost"))  # as its message comes again
    assert await db.write(cancel("next"))
    between.armed = True
    with pytest.raises(OperationalError):
        await db.write(cancel("last"))
    await wait_until(lambda: len(told) == 4)  # though nobody writes any more
    assert [row.lane for row in told] == [f"submission/{name}" for name in ("before", "lost", "next", "last")]  # fmt: skip
    assert told == await db.outbox_rows(0, 100)
    await db.close()
    await between.close()


async def test_events_that_an_earlier_process_left_are_not_told_again(store_url: str) -> None:
    """Where the outcome of the first commit is unknown, too: the relay has read them."""
    first = Database(store_url, metadata, clock=SystemClock(), source="/t")
    await first.start()
    await first.write(lambda tx: tx.emit(RunCancelRequested(run_id="left")) and None)
    await first.close()
    db = Database(store_url, metadata, clock=SystemClock(), source="/t")
    told: list[OutboxRow] = []
    db.on_emitted = told.extend
    await db.start()
    db._unsure = True
    await db.write(lambda tx: tx.emit(RunCancelRequested(run_id="new")) and None)
    assert [row.lane for row in told] == ["submission/new"]
    await db.close()


def test_a_server_that_vanished_is_noticed(postgres_server: PostgresServer) -> None:
    url = make_url(postgres_server.create("vanished")).update_query_dict({"connect_timeout": "7"})
    engine = open_engine(url.render_as_string())
    with engine.connect() as conn:
        driver: Any = conn.connection.driver_connection
        given = driver.info.get_parameters()
        with socket.socket(fileno=os.dup(driver.fileno())) as sock:
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 20_000
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 10
    assert given["connect_timeout"] == "7"  # the URL's own
    engine.dispose()


async def test_a_fault_is_not_called_unavailable(db: Database) -> None:
    """A caller repeats what is unavailable; a fault would come again for ever."""
    with pytest.raises(DBAPIError) as caught:
        await db.write(lambda tx: tx.conn.execute(text("SELECT no_such_column FROM things")) and None)  # fmt: skip
    assert json.loads(encode_error(caught.value).body)["kind"] == "internal"


async def test_a_full_or_busy_store_is_unavailable(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/store.db"
    db = Database(url, metadata, clock=SystemClock(), source="/t")
    await db.start()

    def fill(tx: Tx) -> None:
        tx.conn.exec_driver_sql("PRAGMA max_page_count=1")  # never below what there is
        tx.conn.execute(insert(things).values(name="a", content="x" * 10_000_000))

    with pytest.raises(OperationalError, match="full") as caught:
        await db.write(fill)
    assert json.loads(encode_error(caught.value).body)["kind"] == "unavailable"
    await db.close()
    engine = open_engine(url)
    with closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with engine.connect() as conn:
            conn.exec_driver_sql("PRAGMA busy_timeout=0")
            with pytest.raises(OperationalError, match="locked") as busy:
                conn.execute(insert(things).values(name="b"))
    engine.dispose()
    assert json.loads(encode_error(busy.value).body)["kind"] == "unavailable"


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:hunter2@host/{service}", "holds a password.*passfile"),
        ("mysql://host/a", "'mysql'.*sqlite:// or postgresql://"),
        ("nonsense", "is no URL"),
        ("postgresql://me@host/a?password=hunter2", "holds a password.*passfile"),
        ("postgresql://me@host/a?sslkey=/k&sslpassword=hunter2", "'sslpassword'.*sslkey="),
        ("postgresql+psycopg2://me@host/a", r"'postgresql\+psycopg2'.*write postgresql://"),
        ("postgresql+asyncpg://me@host/a", r"'postgresql\+asyncpg'.*write postgresql://"),
        ("sqlite+aiosqlite:///a", r"'sqlite\+aiosqlite'.*write sqlite://"),
    ],
)
def test_what_cannot_be_a_store_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        ServiceSettings(database_url=url)
    assert "hunter2" not in str(caught.value.errors(include_input=False, include_url=False))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RuntimeError, match=r"pip install 'stellwerk-kit\[postgresql\]'"):
        open_engine("postgresql://host/a")
