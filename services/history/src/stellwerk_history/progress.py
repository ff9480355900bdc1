"""How many records each writer of an attempt has given: what is known is not taken twice."""

from collections.abc import Iterable

from sqlalchemy import and_, func, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk_history import rows
from stellwerk_history.records import EXECUTOR
from stellwerk_history.tables import attempts, writers

Counts = dict[str, int]
"""Records by writer."""


def read_counts(conn: Connection, run_id: str, attempt: int) -> Counts:
    """The writers of an attempt."""
    mine = and_(attempts.c.run_id == run_id, attempts.c.attempt == attempt)
    others = and_(writers.c.run_id == run_id, writers.c.attempt == attempt)
    known = conn.scalar(select(attempts.c.records).where(mine))
    counts = {} if known is None else {EXECUTOR: int(known)}
    query = select(writers.c.writer, writers.c.records).where(others)
    return counts | {row.writer: row.records for row in conn.execute(query)}


def write_counts(conn: Connection, run_id: str, attempt: int, counts: Counts) -> None:
    """Remember them."""
    for writer, records in counts.items():
        table = attempts if writer == EXECUTOR else writers
        key = {"run_id": run_id, "attempt": attempt}
        if writer != EXECUTOR:
            key["writer"] = writer
        here = and_(*(table.c[name] == value for name, value in key.items()))
        if conn.execute(update(table).where(here).values(records=records)).rowcount == 0:
            conn.execute(insert(table).values(**key, records=records))


def newest_attempts(conn: Connection, run_ids: Iterable[str]) -> dict[str, int]:
    """The latest attempt of each run that has logged anything."""
    found: dict[str, int] = {}
    for some in rows.slices(run_ids):
        for table in (attempts, writers):
            newest = func.max(table.c.attempt).label("newest")
            query = select(table.c.run_id, newest).where(table.c.run_id.in_(some))
            for row in conn.execute(query.group_by(table.c.run_id)):
                found[row.run_id] = max(row.newest, found.get(row.run_id, 0))
    return found
