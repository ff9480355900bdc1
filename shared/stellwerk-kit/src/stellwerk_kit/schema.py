"""Brings a store made by an earlier release up to what this one expects, or refuses clearly.

Releases change tables by adding: a new table, or a column that may be empty. Anything else needs
a migration of its own and is refused here instead of failing later in the middle of a run.
"""

from sqlalchemy import Column, Engine, MetaData, Table, inspect
from sqlalchemy.schema import CreateColumn

from stellwerk.errors import StellwerkError

KITS = frozenset({"outbox", "inbox"})
"""Tables that every service's store has."""


class SchemaError(StellwerkError):
    """The store belongs to another release."""

    code = "store.schema"


def upgrade(engine: Engine, metadata: MetaData) -> list[str]:
    """Create missing tables and add missing optional columns; returns what was added.

    Raises SchemaError for a column that cannot be added to rows that are there already, and for
    the store of another service.
    """
    inspector = inspect(engine)
    have = {
        name: {c["name"] for c in inspector.get_columns(name)}
        for name in inspector.get_table_names()
    }
    own = metadata.tables.keys() - KITS
    if have.keys() >= KITS and own and have.keys().isdisjoint(own):
        theirs = ", ".join(sorted(have.keys() - KITS)[:3])
        raise SchemaError(
            f"the store is another service's (it holds {theirs}); "
            "each service needs one of its own: write {service} in STELLWERK_DATABASE_URL"
        )
    added = []
    for table in metadata.sorted_tables:
        for column in table.columns if table.name in have else ():
            if column.name not in have[table.name]:
                _add(engine, table, column)
                added.append(f"{table.name}.{column.name}")
    metadata.create_all(engine)
    return added


def _add(engine: Engine, table: Table, column: Column[object]) -> None:
    if not column.nullable and column.server_default is None:
        raise SchemaError(
            f"the store lacks {table.name}.{column.name}, which cannot be added to old rows: "
            "it was written by another release. Start that release, or use a new data folder."
        )
    definition = CreateColumn(column).compile(engine)
    with engine.begin() as conn:
        conn.exec_driver_sql(f'ALTER TABLE "{table.name}" ADD COLUMN {definition}')
