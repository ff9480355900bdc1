"""Parents and children of runs, at any depth."""

from typing import Any

from sqlalchemy import Select, literal, select
from sqlalchemy.engine import Connection

from stellwerk_history.tables import runs

MAX_DEPTH = 32


def descendants(run_id: str) -> Select[Any]:
    """Ids of everything below a run."""
    found = (
        select(runs.c.run_id.label("id"), literal(1).label("depth"))
        .where(runs.c.parent_run_id == run_id)
        .cte("below", recursive=True)
    )
    deeper = select(runs.c.run_id, found.c.depth + 1).where(
        runs.c.parent_run_id == found.c.id, found.c.depth < MAX_DEPTH
    )
    return select(found.union(deeper).c.id)


def ancestors(conn: Connection, run_id: str) -> list[str]:
    """Ids of a run's parent, its parent's parent and so on."""
    found: list[str] = []
    parent: str | None = run_id
    while parent is not None and len(found) < MAX_DEPTH:
        parent = conn.scalar(select(runs.c.parent_run_id).where(runs.c.run_id == parent))
        if parent is not None:
            found.append(parent)
    return found
