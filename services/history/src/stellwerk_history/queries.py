"""Reading runs: one, their status streams, pages of them in any order, experiments.

Lists are read along an index from the cursor on: the cost of a page does not grow with the
history. A page ends early where it would not fit one reply of the broker.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from sqlalchemy import (
    ColumnElement,
    Integer,
    Select,
    and_,
    bindparam,
    exists,
    func,
    literal,
    or_,
    select,
    tuple_,
)
from sqlalchemy.engine import Connection

from stellwerk.answers import ExperimentView
from stellwerk.api import Page, RunEventView, RunView
from stellwerk_history import family, rows
from stellwerk_history.domain import Run, view
from stellwerk_history.paging import (
    Order,
    decode_cursor,
    decode_name,
    encode_cursor,
    encode_name,
)
from stellwerk_history.tables import aware, events, experiments, labels, latest, runs
from stellwerk_kit.db import Database
from stellwerk_kit.prepared import Prepared

REPLY_BYTES = 900_000

_EVENTS = Prepared(
    select(events)
    .where(events.c.run_id == bindparam("run"), events.c.sequence > bindparam("after"))
    .order_by(events.c.sequence)
    .limit(bindparam("most", type_=Integer))
)

B = TypeVar("B", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class RunFilter:
    """What a list is restricted to; ``tag`` and ``property`` are ``name`` or ``name=value``."""

    experiment: str | None = None
    status: str | None = None
    tag: str | None = None
    property: str | None = None
    target: str | None = None
    parent_run_id: str | None = None
    ancestor_run_id: str | None = None
    search: str | None = None


class Queries:
    """Reads of runs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def run(self, run_id: str) -> Run | None:
        """A run, None if it is not known."""
        return await self._db.look(lambda conn: rows.load_run(conn, run_id))

    async def view(self, run_id: str, now: datetime) -> RunView | None:
        """A run as the API shows it, with its spec."""

        def work(conn: Connection) -> RunView | None:
            run = rows.load_run(conn, run_id)
            if run is None:
                return None
            tags, properties = rows.load_labels(conn, [run_id]).get(run_id, ({}, {}))
            return view(run, now, tags, properties, rows.load_spec(conn, run_id))

        return await self._db.look(work)

    async def events(
        self, run_id: str, after: int, limit: int
    ) -> tuple[Run, list[RunEventView]] | None:
        """A run with the entries of its status stream after a sequence, None if it is not known.

        Both are read in one transaction: a run that is over has all its entries.
        """
        values = {"run": run_id, "after": after, "most": limit}

        def work(conn: Connection) -> tuple[Run, list[RunEventView]] | None:
            run = rows.load_run(conn, run_id)
            if run is None:
                return None
            if run.sequence <= after:  # the rule for a reader who begins to wait
                return run, []
            return run, fitting([_event(row) for row in _EVENTS.all(conn, values)])

        return await self._db.look(work)

    async def ancestors(self, run_id: str) -> list[str]:
        """Ids of a run's parent and everything above it."""
        return await self._db.read(lambda conn: family.ancestors(conn, run_id))

    async def list_runs(
        self, wanted: RunFilter, order: Order, limit: int, cursor: str | None, now: datetime
    ) -> Page[RunView]:
        """A page of runs without their specs."""
        after = decode_cursor(order, cursor) if cursor is not None else None
        query = page_query(wanted, order, after).limit(limit + 1)

        def work(conn: Connection) -> Page[RunView]:
            found = conn.execute(query).all()
            known = rows.load_labels(conn, [row.run_id for row in found])
            views = [
                view(rows.run_of(row), now, *known.get(row.run_id, ({}, {})))
                for row in found[:limit]
            ]
            shown = fitting(views)
            if len(shown) == len(found):
                return Page[RunView](items=tuple(shown))
            last = found[len(shown) - 1]
            following = encode_cursor(order.text, last.sort_key, last.sort_position)
            return Page[RunView](items=tuple(shown), next_cursor=following)

        return await self._db.read(work)

    async def experiments(self, limit: int, cursor: str | None) -> Page[ExperimentView]:
        """Experiments by name."""
        query = select(experiments).order_by(experiments.c.name).limit(limit + 1)
        if cursor is not None:
            query = query.where(experiments.c.name > decode_name(cursor))

        def work(conn: Connection) -> Page[ExperimentView]:
            found = conn.execute(query).all()
            items = tuple(
                ExperimentView(name=row.name, runs=row.runs, last_run_at=aware(row.last_run_at))
                for row in found[:limit]
            )
            more = encode_name(items[-1].name) if len(found) > limit else None
            return Page[ExperimentView](items=items, next_cursor=more)

        return await self._db.read(work)


def page_query(wanted: RunFilter, order: Order, after: tuple[Any, int] | None) -> Select[Any]:
    """Runs in order behind ``after``, with ``sort_key`` and ``sort_position`` for the cursor."""
    tables: Any = runs
    position: ColumnElement[int] = runs.c.position
    key: ColumnElement[Any] | None = _key_column(order)
    conditions = _conditions(wanted)
    if order.metric is not None:
        tables = latest.join(runs, runs.c.run_id == latest.c.run_id)
        position = latest.c.position
        conditions.append(latest.c.name == order.metric)
        conditions.append(latest.c.position.is_not(None))
        if wanted.experiment is not None:
            conditions.append(latest.c.experiment == wanted.experiment)
    elif order.column == "position" and wanted.tag is not None:
        tables = labels.join(runs, runs.c.run_id == labels.c.run_id)
        position = labels.c.position
        conditions += [*_label(rows.TAG, wanted.tag), labels.c.position.is_not(None)]
    if wanted.tag is not None and position is not labels.c.position:
        conditions.append(_has_label(rows.TAG, wanted.tag))
    if wanted.property is not None:
        conditions.append(_has_label(rows.PROPERTY, wanted.property))
    sort_by = [position] if key is None else [key, position]
    if after is not None:
        conditions.append(_behind(sort_by, after, descending=order.descending))
    shown_key = literal(None) if key is None else key
    query = select(runs, shown_key.label("sort_key"), position.label("sort_position"))
    directed = [each.desc() if order.descending else each.asc() for each in sort_by]
    return query.select_from(tables).where(*conditions).order_by(*directed)


def fitting(items: Sequence[B]) -> list[B]:
    """As many of ``items`` as fit one reply, at least one."""
    size, fit = 0, list[B]()
    for item in items:
        size += len(item.model_dump_json().encode()) + 1
        if fit and size > REPLY_BYTES:
            break
        fit.append(item)
    return fit


def _key_column(order: Order) -> ColumnElement[Any] | None:
    columns: dict[str, ColumnElement[Any]] = {
        "name": runs.c.name_key,
        "duration": runs.c.duration_key,
        "status": runs.c.status,
        "metric": latest.c.value,
    }
    return columns.get(order.column)


def _behind(
    sort_by: list[ColumnElement[Any]], after: tuple[Any, int], *, descending: bool
) -> ColumnElement[bool]:
    if len(sort_by) == 1:
        return sort_by[0] < after[1] if descending else sort_by[0] > after[1]
    place, mark = tuple_(*sort_by), tuple_(literal(after[0]), literal(after[1]))
    return place < mark if descending else place > mark


def _conditions(wanted: RunFilter) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = []
    if wanted.experiment is not None:
        conditions.append(runs.c.experiment == wanted.experiment)
    if wanted.status is not None:
        conditions.append(runs.c.status == wanted.status)
    if wanted.target is not None:
        conditions.append(runs.c.target == wanted.target)
    if wanted.parent_run_id is not None:
        conditions.append(runs.c.parent_run_id == wanted.parent_run_id)
    if wanted.ancestor_run_id is not None:
        conditions.append(runs.c.run_id.in_(family.descendants(wanted.ancestor_run_id)))
    if wanted.search is not None:
        prefix = wanted.search.lower()
        conditions.append(
            or_(
                and_(runs.c.run_id >= prefix, runs.c.run_id < prefix + "\U0010ffff"),
                func.lower(runs.c.name_key).contains(prefix, autoescape=True),
                func.lower(runs.c.experiment).contains(prefix, autoescape=True),
            )
        )
    return conditions


def _label(kind: str, text: str) -> list[ColumnElement[bool]]:
    name, equals, value = text.partition("=")
    found = [labels.c.kind == kind, labels.c.name == name]
    return [*found, labels.c.value == value] if equals else found


def _has_label(kind: str, text: str) -> ColumnElement[bool]:
    other = labels.alias()
    name, equals, value = text.partition("=")
    mine = and_(other.c.run_id == runs.c.run_id, other.c.kind == kind, other.c.name == name)
    return exists().where(mine, other.c.value == value) if equals else exists().where(mine)


def _event(row: Any) -> RunEventView:
    return RunEventView(
        sequence=row.sequence,
        type=row.type,
        time=aware(row.time),
        status=row.status,
        attempt=row.attempt,
        message=row.message,
        phases=json.loads(row.phases),
        data=json.loads(row.data),
    )
