"""Many values at once: a run's metrics, or those of everything below it, as JSON made of rows.

Values are stored as JSON texts and leave as they are: nothing is parsed on the way, so that 100,000
points cost little more than reading them.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import bindparam, select
from sqlalchemy.engine import Connection

from stellwerk.errors import UserError
from stellwerk_history import family
from stellwerk_history.progress import newest_attempts
from stellwerk_history.queries import REPLY_BYTES
from stellwerk_history.tables import metrics, runs
from stellwerk_kit.db import Database

SERIES_OVERHEAD, RUN_OVERHEAD = 100, 4

_ROWS = (
    select(metrics.c.sequence, metrics.c.name, metrics.c.kind, metrics.c.value)
    .where(
        metrics.c.run_id == bindparam("run_id"),
        metrics.c.attempt == bindparam("attempt"),
        metrics.c.sequence > bindparam("after"),
    )
    .order_by(metrics.c.sequence)
)
_NAMED = _ROWS.where(metrics.c.name == bindparam("name"))


@dataclass(frozen=True, slots=True)
class Wanted:
    """Whose values: of one metric or of all, with those of all descendants or not."""

    run_id: str
    name: str | None
    recursive: bool
    cursor: str | None


class SeriesReader:
    """Reads pages of series."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def page(self, wanted: Wanted) -> bytes | None:
        """A ``SeriesPage`` as JSON; None: no such run.

        Values of one series are in the order they were logged; a series goes on in the next page.
        """
        return await self._db.read(lambda conn: _page(conn, wanted))


def _page(conn: Connection, wanted: Wanted) -> bytes | None:
    position, sequence = _place(wanted.cursor)
    mine = runs.c.run_id == wanted.run_id
    if wanted.recursive:
        mine |= runs.c.run_id.in_(family.descendants(wanted.run_id))
    query = select(runs.c.run_id, runs.c.position, runs.c.attempt).where(mine)
    found = conn.execute(query.order_by(runs.c.position)).all()
    if not found:
        return None
    left = [run for run in found if run.position >= position]
    newest = newest_attempts(conn, (run.run_id for run in left))
    page = _Page()
    for run in left:
        if page.full:
            return page.text(f"{run.position}:0")
        after = sequence if run.position == position else 0
        attempt = max(run.attempt, newest.get(run.run_id, 0))
        key = {"run_id": run.run_id, "attempt": attempt, "after": after}
        reached = page.add(conn, key, wanted.name)
        if reached is not None:
            return page.text(f"{run.position}:{reached}")
    return page.text(None)


class _Page:
    """One page as it grows."""

    def __init__(self) -> None:
        self._size = 0
        self._series: list[str] = []
        self._runs: list[str] = []

    @property
    def full(self) -> bool:
        """Whether the next run has to wait for the next page."""
        return self._size > REPLY_BYTES

    def add(self, conn: Connection, key: dict[str, Any], name: str | None) -> int | None:
        """A run's values; the last sequence taken where there is no room for all."""
        self._runs.append(key["run_id"])
        self._size += len(key["run_id"]) + RUN_OVERHEAD
        given = key if name is None else {**key, "name": name}
        found = conn.execute(_ROWS if name is None else _NAMED, given)
        series: dict[tuple[str, str], list[str]] = {}
        add, last, size = None, ("", ""), self._size
        reached, full = key["after"], False
        # The driver's own rows: making objects of them costs more than reading them.
        for sequence, metric, kind, text in cast("Iterable[Any]", found.cursor):
            if add is None or last != (metric, kind):
                last = (metric, kind)
                if last not in series:
                    series[last] = []
                    size += len(json.dumps(metric)) + SERIES_OVERHEAD
                add = series[last].append
            size += (len(text) if text.isascii() else len(text.encode())) + 1
            if size > REPLY_BYTES and (self._series or reached != key["after"]):
                full = True
                break
            add(text)
            reached = sequence
        found.close()
        self._size = size
        self._take(json.dumps(key["run_id"]), series)
        return reached if full else None

    def _take(self, run_id: str, series: dict[tuple[str, str], list[str]]) -> None:
        self._series += [
            f'{{"run_id":{run_id},"name":{json.dumps(metric)},"kind":"{kind}",'
            f'"values":[{",".join(texts)}]}}'
            for (metric, kind), texts in series.items()
            if texts
        ]

    def text(self, following: str | None) -> bytes:
        """The page as JSON; ``following`` is where the next begins."""
        runs, end = json.dumps(self._runs), json.dumps(following)
        return f'{{"runs":{runs},"series":[{",".join(self._series)}],"next":{end}}}'.encode()


def _place(cursor: str | None) -> tuple[int, int]:
    position, _, sequence = (cursor or "0:0").partition(":")
    if not (position.isdecimal() and sequence.isdecimal() and len(cursor or "") < 40):
        raise UserError("cursor: pass next of the page before.", code="cursor", field="cursor")
    return int(position), int(sequence)
