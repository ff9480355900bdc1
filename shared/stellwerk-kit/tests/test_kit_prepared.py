"""Prepared statements give what Core gives: types, errors, numbers, whatever the dialect."""

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    DateTime,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from stellwerk_kit.dialects import open_engine
from stellwerk_kit.prepared import Prepared, Sized, _Form

metadata = MetaData()
things = Table(
    "things",
    metadata,
    Column("number", Integer, primary_key=True, autoincrement=True),
    Column("name", String(40), nullable=False, unique=True),
    Column("ready", Boolean),
    Column("at", DateTime(timezone=True)),
    Column("data", LargeBinary),
)
pairs = Table(
    "pairs",
    metadata,
    Column("left", String(40), primary_key=True),
    Column("right", Integer, primary_key=True, autoincrement=False),
)
ADD = Prepared(insert(things))
BY_NAME = Prepared(select(things).where(things.c.name == bindparam("wanted")))
CHANGE = Prepared(update(things).where(things.c.name == bindparam("wanted")))
ROW = {"name": "a", "ready": True, "at": datetime(2026, 1, 2, tzinfo=UTC), "data": b"\0x"}


@pytest.fixture
def conn(store_url: str) -> Iterator[Connection]:
    engine = open_engine(store_url)
    metadata.create_all(engine)
    with engine.begin() as conn:
        yield conn
    engine.dispose()


def test_rows_are_those_of_core(conn: Connection) -> None:
    assert ADD.insert(conn, ROW) == 1
    assert ADD.insert(conn, {"name": "b", "ready": None}) == 2
    core = conn.execute(select(things).order_by(things.c.number)).all()
    assert [tuple(BY_NAME.first(conn, {"wanted": name}) or ()) for name in "ab"] == [*core]
    found = BY_NAME.all(conn, {"wanted": "a"})[0]
    assert (found.ready, found.data) == (True, b"\0x")
    assert isinstance(found.at, datetime)


def test_a_key_that_is_given_is_no_number(conn: Connection) -> None:
    given = Prepared(insert(pairs))
    assert given.insert(conn, {"left": "a", "right": 1}) in {0, 1}  # SQLite numbers every row
    found = Prepared(select(pairs)).first(conn, {})
    assert found is not None
    assert tuple(found) == ("a", 1)


def test_each_set_of_columns_has_its_own_text(conn: Connection) -> None:
    ADD.each(conn, [{**ROW, "name": name} for name in ("a", "b")])
    assert CHANGE.run(conn, {"wanted": "a", "ready": False}) == 1
    assert CHANGE.run(conn, {"wanted": "b", "data": b"y", "at": None}) == 1
    assert CHANGE.run(conn, {"wanted": "nobody", "ready": False}) == 0
    rows = conn.execute(select(things.c.ready, things.c.data).order_by(things.c.name)).all()
    assert rows == [(False, b"\0x"), (True, b"y")]


def test_rows_by_the_thousand(conn: Connection) -> None:
    ADD.each_row(conn, ("name", "data"), [(str(n), bytes([n])) for n in range(3)])
    moment = datetime(2026, 1, 2, tzinfo=UTC)
    ADD.each_row(conn, ("at", "name"), [(moment, "x"), (None, "y")])
    rows = conn.execute(select(things.c.name, things.c.data).order_by(things.c.number)).all()
    assert rows == [("0", b"\0"), ("1", b"\x01"), ("2", b"\x02"), ("x", None), ("y", None)]
    assert BY_NAME.all(conn, {"wanted": "x"})[0].at.replace(tzinfo=UTC) == moment


def test_a_limit_that_is_written_down_stays(conn: Connection) -> None:
    ADD.each(conn, [{"name": str(number)} for number in range(5)])
    first = Prepared(select(things.c.name).where(things.c.ready.is_(None)).limit(2))
    assert len(first.all(conn, {})) == 2
    assert Prepared(select(func.count()).select_from(things)).scalar(conn, {}) == 5
    assert BY_NAME.first(conn, {"wanted": "none"}) is None


def test_errors_are_those_of_core(conn: Connection) -> None:
    ADD.run(conn, {"name": "a"})
    with pytest.raises(IntegrityError, match=r"things[._]name"), conn.begin_nested():
        ADD.run(conn, {"name": "a"})
    with pytest.raises((OperationalError, ProgrammingError), match=r"no such table|does not exist"):
        Prepared(select(Table("none", MetaData(), Column("a", Integer)))).all(conn, {})


def test_many_values_take_one_text_for_each_power_of_two(conn: Connection) -> None:
    ADD.each(conn, [{"name": str(number)} for number in range(9)])
    named = Sized(lambda names: select(things.c.name).where(things.c.name.in_(names)))
    for count in (0, 1, 3, 4, 9):
        found = named.all(conn, [str(number) for number in range(count)])
        assert sorted(row.name for row in found) == [str(number) for number in range(count)]
    assert sorted(named._forms) == [1, 4, 16]


def test_text_that_depends_on_values_is_refused(conn: Connection) -> None:
    loose = select(things).where(things.c.name.in_(bindparam("names", expanding=True)))
    with pytest.raises(ValueError, match="depends on its values"):
        Prepared(loose).all(conn, {"names": ["a"]})


def test_postgresql_gets_its_own_text() -> None:
    form = _Form(insert(things), postgresql.dialect(), ("name", "ready"))  # type: ignore[no-untyped-call]
    assert "%(name)s" in form.text
    assert "RETURNING things.number" in form.text
    assert form.values({"name": "a", "ready": True}) == {"name": "a", "ready": True}
