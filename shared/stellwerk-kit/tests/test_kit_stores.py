"""A service's store is the same on SQLite and on PostgreSQL; PostgreSQL may go away and come back."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta, timezone
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
    select,
)
from sqlalchemy.exc import OperationalError

from stellwerk.events import RunCancelRequested
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.db import Database, Tx
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


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://me:secret@host/{service}", "holds a password.*passfile"),
        ("mysql://host/a", "'mysql'.*sqlite:// or postgresql://"),
        ("nonsense", "is no URL"),
    ],
)
def test_what_cannot_be_a_store_is_refused(url: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        ServiceSettings(database_url=url)
    assert "secret" not in str(caught.value.errors(include_input=False, include_url=False))


def test_a_missing_driver_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RuntimeError, match=r"pip install 'stellwerk-kit\[postgresql\]'"):
        open_engine("postgresql://host/a")
