"""SQL on interactive runs that a script drives: they end when its run does."""

from sqlalchemy import Connection, bindparam, delete, insert, select

from stellwerk_scheduler.model import Run
from stellwerk_scheduler.tables import driven

_ADD = insert(driven)
_OF = select(driven.c.run_id).where(driven.c.parent_run_id == bindparam("parent"))
_FORGET = delete(driven).where(driven.c.run_id == bindparam("run"))


def add(conn: Connection, run: Run) -> None:
    """Remember a run that was begun below another one."""
    parent = run.submitted.parent_run_id
    if run.spec.interactive and parent is not None:
        conn.execute(_ADD, {"run_id": run.run_id, "parent_run_id": parent})


def of(conn: Connection, parent_run_id: str) -> list[str]:
    """Those below a run that have not ended."""
    return list(conn.execute(_OF, {"parent": parent_run_id}).scalars())


def forget(conn: Connection, run: Run) -> None:
    """It has ended."""
    if run.spec.interactive:
        conn.execute(_FORGET, {"run": run.run_id})
