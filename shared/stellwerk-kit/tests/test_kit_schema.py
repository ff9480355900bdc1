"""Stores of earlier releases: additions are made, anything else is refused with what to do."""

import pytest
from sqlalchemy import Column, Integer, MetaData, String, Table, inspect, text

from stellwerk_kit.dialects import open_engine
from stellwerk_kit.schema import SchemaError, upgrade


def test_added_tables_and_optional_columns_appear(store_url: str) -> None:
    engine = open_engine(store_url)
    old, new = MetaData(), MetaData()
    Table("things", old, Column("id", Integer, primary_key=True))
    upgrade(engine, old)
    with engine.begin() as conn:
        conn.execute(text("INSERT INTO things (id) VALUES (1)"))
    Table("things", new, Column("id", Integer, primary_key=True), Column("note", String(20)))
    Table("more", new, Column("id", Integer, primary_key=True))
    assert upgrade(engine, new) == ["things.note"]
    assert upgrade(engine, new) == []
    assert inspect(engine).has_table("more")
    with engine.connect() as conn:
        assert conn.execute(text("SELECT id, note FROM things")).all() == [(1, None)]
    engine.dispose()


def test_a_column_old_rows_cannot_have_is_refused(store_url: str) -> None:
    engine = open_engine(store_url)
    old, new = MetaData(), MetaData()
    Table("things", old, Column("id", Integer, primary_key=True))
    upgrade(engine, old)
    Table(
        "things",
        new,
        Column("id", Integer, primary_key=True),
        Column("must", Integer, nullable=False),
    )
    with pytest.raises(SchemaError, match=r"things\.must.*new data folder"):
        upgrade(engine, new)
    engine.dispose()


def test_the_store_of_another_service_is_refused(store_url: str) -> None:
    engine = open_engine(store_url)
    ours, theirs = MetaData(), MetaData()
    for metadata, name in ((ours, "things"), (theirs, "runs")):
        for table in ("outbox", "inbox", name):
            Table(table, metadata, Column("id", Integer, primary_key=True))
    upgrade(engine, theirs)
    with pytest.raises(SchemaError, match=r"another service's \(it holds runs\).*\{service\}"):
        upgrade(engine, ours)
    assert not inspect(engine).has_table("things")
    upgrade(engine, theirs)
    engine.dispose()
