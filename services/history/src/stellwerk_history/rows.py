"""Runs and their labels as rows: the form both the projection and the queries share."""

from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

from sqlalchemy import bindparam, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.runspec import RunSpec
from stellwerk.runstate import RunState, RunStatus
from stellwerk_history.domain import Detail, Run, duration_key
from stellwerk_history.tables import aware, labels, positions, runs, specs
from stellwerk_kit.documents import Documents
from stellwerk_kit.prepared import Prepared, Sized

IN_AT_ONCE = 500
TAG, PROPERTY = "tag", "property"

# Statements are made once: building one costs as much as running it.
_RUNS = Sized(lambda ids: select(runs).where(runs.c.run_id.in_(ids)))
_DETAIL = Prepared(select(runs.c.detail).where(runs.c.run_id == bindparam("key")))
_SPEC = Prepared(select(specs.c.spec).where(specs.c.run_id == bindparam("key")))
_LABELS = Sized(lambda ids: select(labels).where(labels.c.run_id.in_(ids)).order_by(labels.c.name))
_READ_POSITION = Prepared(
    select(positions.c.sequence).where(positions.c.consumer == bindparam("name"))
)
_MOVE_POSITION = Prepared(
    update(positions)
    .where(positions.c.consumer == bindparam("name"))
    .values(sequence=bindparam("reached"))
)
_NEW_POSITION = Prepared(insert(positions))

_DETAILS = Documents(Detail, 2048)
"""Runs that are under way are read with each batch of events and by everybody who waits."""

Labels = dict[str, str | None]


def slices(ids: Iterable[str]) -> Iterable[list[str]]:
    """``ids`` in pieces that fit one ``IN``."""
    known = list(ids)
    for start in range(0, len(known), IN_AT_ONCE):
        yield known[start : start + IN_AT_ONCE]


def run_values(run: Run) -> dict[str, Any]:
    """Columns of a run that events change."""
    detail = run.detail.model_dump_json(exclude_defaults=True)
    _DETAILS.wrote(detail, run.detail)
    return {
        "status": str(run.state.status),
        "display_name": run.display_name,
        "name_key": run.display_name or run.state.run_id,
        "duration_key": duration_key(run.detail),
        "state": str(run.state.state),
        "attempt": run.state.attempt,
        "cancel_requested": run.state.cancel_requested,
        "not_responding": run.state.not_responding,
        "sequence": run.sequence,
        "owner_sequence": run.owner_sequence,
        "detail": detail,
    }


def fixed_values(run: Run) -> dict[str, Any]:
    """Columns of a run that its submission sets for good."""
    return {
        "run_id": run.state.run_id,
        "position": run.position,
        "experiment": run.experiment,
        "number": run.number,
        "target": run.target,
        "parent_run_id": run.parent_run_id,
        "submitted_by": run.submitted_by,
        "submitted_at": run.submitted_at,
    }


def run_of(row: Any) -> Run:
    """The run of a row."""
    return Run(
        state=RunState(
            run_id=row.run_id,
            state=RunStatus(row.state),
            attempt=row.attempt,
            cancel_requested=row.cancel_requested,
            not_responding=row.not_responding,
        ),
        position=row.position,
        experiment=row.experiment,
        number=row.number,
        target=row.target,
        submitted_at=aware(row.submitted_at),
        submitted_by=row.submitted_by,
        parent_run_id=row.parent_run_id,
        display_name=row.display_name,
        sequence=row.sequence,
        owner_sequence=row.owner_sequence,
        detail=_DETAILS.read(row.detail),
    )


def load_runs(conn: Connection, run_ids: Iterable[str]) -> dict[str, Run]:
    """Those of these runs that are known."""
    found: dict[str, Run] = {}
    for some in slices(run_ids):
        for row in _RUNS.all(conn, some):
            found[row.run_id] = run_of(row)
    return found


def load_run(conn: Connection, run_id: str) -> Run | None:
    """One run, None if it is not known."""
    return load_runs(conn, [run_id]).get(run_id)


def load_build_log(conn: Connection, run_id: str) -> tuple[str, int] | None:
    """Environment and number of the build whose log a run shows."""
    text = _DETAIL.scalar(conn, {"key": run_id})
    return _DETAILS.read(text).build_log if text and '"build_log"' in text else None


def load_spec(conn: Connection, run_id: str) -> RunSpec | None:
    """What a run was asked to do."""
    text = _SPEC.scalar(conn, {"key": run_id})
    return _spec(text) if text is not None else None


@lru_cache(maxsize=512)
def _spec(text: str) -> RunSpec:
    return RunSpec.model_validate_json(text)


def load_labels(conn: Connection, run_ids: Iterable[str]) -> dict[str, tuple[Labels, Labels]]:
    """Tags and properties of runs, each by name."""
    found: dict[str, tuple[Labels, Labels]] = {}
    for some in slices(run_ids):
        for row in _LABELS.all(conn, some):
            tags, properties = found.setdefault(row.run_id, ({}, {}))
            (tags if row.kind == TAG else properties)[row.name] = row.value
    return found


def write_labels(
    conn: Connection, run_id: str, kind: str, wanted: Mapping[str, str | None], *, replace: bool
) -> int:
    """Add labels; one that is there is replaced or kept. Returns how many were kept changed."""
    if not wanted:
        return 0
    mine = (labels.c.run_id == run_id) & (labels.c.kind == kind)
    position = conn.scalar(select(runs.c.position).where(runs.c.run_id == run_id))
    present: Labels = {}
    for some in slices(wanted):
        rows = conn.execute(select(labels).where(mine, labels.c.name.in_(some)))
        present |= {row.name: row.value for row in rows}
    new = [
        {"run_id": run_id, "kind": kind, "name": name, "value": value, "position": position}
        for name, value in wanted.items()
        if name not in present
    ]
    if new:
        conn.execute(insert(labels), new)
    changed = {name: wanted[name] for name in present if present[name] != wanted[name]}
    if replace:
        for name, value in changed.items():
            conn.execute(update(labels).where(mine, labels.c.name == name).values(value=value))
        return 0
    return len(changed)


def read_position(conn: Connection, consumer: str) -> int:
    """How far a consumer had come, 0 at first."""
    return int(_READ_POSITION.scalar(conn, {"name": consumer}) or 0)


def write_position(conn: Connection, consumer: str, sequence: int) -> None:
    """Note how far a consumer has come, in the transaction of what it did."""
    if _MOVE_POSITION.run(conn, {"name": consumer, "reached": sequence}) == 0:
        _NEW_POSITION.run(conn, {"consumer": consumer, "sequence": sequence})
