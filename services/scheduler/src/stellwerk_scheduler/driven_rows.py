"""SQL on interactive runs that a script drives: they end when its run does."""

from sqlalchemy import Connection, bindparam, delete, insert, select

from stellwerk_kit.prepared import Prepared
from stellwerk_scheduler.model import Run
from stellwerk_scheduler.tables import driven

_ADD = Prepared(insert(driven))
_OF = Prepared(select(driven.c.run_id).where(driven.c.parent_run_id == bindparam("parent")))
_FORGET = Prepared(delete(driven).where(driven.c.run_id == bindparam("run")))


def add(conn: Connection, run: Run) -> None:
    """Remember a run that was begun below another one."""
    parent = run.submitted.parent_run_id
    if run.spec.interactive and parent is not None:
        _ADD.run(conn, {"run_id": run.run_id, "parent_run_id": parent})


def of(conn: Connection, parent_run_id: str) -> list[str]:
    """Those below a run that have not ended."""
    return [row.run_id for row in _OF.all(conn, {"parent": parent_run_id})]


def forget(conn: Connection, run: Run) -> None:
    """It has ended."""
    if run.spec.interactive:
        _FORGET.run(conn, {"run": run.run_id})
