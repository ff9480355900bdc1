"""SQL on runs and their live attempts. Every query is answered from an index, with a limit."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import (
    BindParameter,
    ColumnElement,
    CompoundSelect,
    Connection,
    Integer,
    Select,
    and_,
    bindparam,
    delete,
    func,
    insert,
    select,
    tuple_,
    union_all,
    update,
)

from stellwerk.events import ExitSummary, ImageInfo, ResolvedInput, RunSubmitted
from stellwerk.runspec import Resources
from stellwerk.runstate import LIVE, TERMINAL, RunStatus
from stellwerk_kit.db import Tx
from stellwerk_kit.documents import Documents
from stellwerk_kit.prepared import Prepared, Sized
from stellwerk_scheduler.leases import Key
from stellwerk_scheduler.model import Failure, Run
from stellwerk_scheduler.tables import attempts, early_cancels, ended, runs

POSITION_LIMIT = 1000
_INPUTS = TypeAdapter(dict[str, ResolvedInput])
_PLAIN = (
    "attempt",
    "cancel_requested",
    "not_responding",
    "sequence",
    "decided",
    "node_id",
    "executor_id",
    "outcome",
    "stopping",
    "user_retries",
    "infra_retries",
    "not_before",
    "deadline",
    "resend_at",
    "resends",
)
"""Columns that hold a field of the same name as it is."""
_DOCUMENTS = ("image", "inputs", "exit", "failure")
"""Columns that hold one as JSON."""

# Statements are made once: building one costs as much as running it.
_RUN: BindParameter[str] = bindparam("run")
_POOL: BindParameter[str] = bindparam("pool")
_MOST = bindparam("most", type_=Integer)
_MINE, _QUEUED_HERE = runs.c.run_id == _RUN, and_(runs.c.pool == _POOL, runs.c.rank.is_not(None))
_PLACE_COLUMNS = (runs.c.rank, runs.c.number, runs.c.run_id, runs.c.demanding)


def _by_place(condition: ColumnElement[bool], limit: Any) -> CompoundSelect[Any]:
    """The first runs of both kinds: each kind is one walk along the index."""
    parts = [
        select(*_PLACE_COLUMNS)
        .where(condition, runs.c.demanding == flag)
        .order_by(runs.c.rank, runs.c.number)
        .limit(limit)
        .subquery()
        for flag in (False, True)
    ]
    both = union_all(*(select(part) for part in parts))
    return both.order_by("rank", "number").limit(2 * limit if isinstance(limit, int) else limit)


def _counted(*conditions: Any) -> Select[Any]:
    some = select(runs.c.number).where(*conditions).limit(_MOST).subquery()
    return select(func.count()).select_from(some)


def _counted_before() -> Select[Any]:
    earlier = tuple_(runs.c.rank, runs.c.number) < tuple_(
        bindparam("priority", type_=Integer), bindparam("number", type_=Integer)
    )
    parts = (
        _counted(_QUEUED_HERE, runs.c.demanding == flag, earlier).scalar_subquery()
        for flag in (False, True)
    )
    return select(next(parts) + next(parts))


_KNOWN = Prepared(select(runs.c.number).where(_MINE))
_KNOWN_ONCE = Prepared(select(ended.c.run_id).where(ended.c.run_id == _RUN))
_FORGET = Prepared(delete(runs).where(_MINE))
_REMEMBER = Prepared(insert(ended))
_LOAD = Prepared(select(runs).where(_MINE))
_INSERT = Prepared(insert(runs))
_SAVE = Prepared(update(runs).where(_MINE))
_DUE = Prepared(
    select(runs.c.run_id)
    .where(runs.c.wake_at <= bindparam("now"))
    .order_by(runs.c.wake_at)
    .limit(_MOST)
)
_HEADS = Prepared(_by_place(_QUEUED_HERE, 1))
_FIRST_QUEUED = Prepared(
    _by_place(and_(_QUEUED_HERE, runs.c.state == RunStatus.QUEUED.value), _MOST)
)
_DEMAND = Prepared(_counted(_QUEUED_HERE))
_LIVE_RUNS = _counted(runs.c.pool == _POOL, runs.c.state.in_(sorted(LIVE)))
_IN_STATE = Prepared(
    select(runs.c.run_id)
    .where(runs.c.pool == _POOL, runs.c.state == bindparam("state"))
    .order_by(runs.c.number)
    .limit(_MOST)
)
_PLACE = Prepared(select(runs.c.pool, runs.c.priority, runs.c.number).where(_MINE))
_BEFORE = Prepared(_counted_before())
_ATTEMPT = (
    attempts.c.run_id,
    attempts.c.attempt,
    attempts.c.pool,
    attempts.c.node_id,
    attempts.c.executor_id,
)
_ATTEMPTS_OF = Sized(lambda ids: select(*_ATTEMPT).where(attempts.c.run_id.in_(ids)))
_ATTEMPTS_IN = Prepared(select(attempts.c.run_id).where(attempts.c.pool == _POOL).limit(_MOST))
_HOLD = Prepared(insert(attempts))
_RELEASE = Prepared(delete(attempts).where(attempts.c.run_id == _RUN))
_SUBMITTED = Documents(RunSubmitted, 1024)
"""A run's submission never changes and is read with each of its facts."""
_IMAGES = Documents(ImageInfo, 1024)
_EARLY_CANCEL = Prepared(select(early_cancels.c.reason).where(early_cancels.c.run_id == _RUN))


@dataclass(frozen=True, slots=True)
class LiveAttempt:
    """An attempt that holds a slot."""

    run_id: str
    attempt: int
    pool: str
    node_id: str
    executor_id: str

    @property
    def key(self) -> Key:
        """Run and attempt."""
        return self.run_id, self.attempt


def demanding(resources: Resources) -> bool:
    """Whether a run asks for a share of the machine beside its slot."""
    return bool(resources.gpus or resources.cpus or resources.memory_mb)


def known(conn: Connection, run_id: str) -> bool:
    """Whether a run was submitted, ever."""
    key = {"run": run_id}
    return _KNOWN.first(conn, key) is not None or _KNOWN_ONCE.first(conn, key) is not None


def insert_run(conn: Connection, run: Run) -> None:
    """A new run."""
    submitted = run.submitted.model_dump_json(by_alias=True)
    _SUBMITTED.wrote(submitted, run.submitted)
    fixed = {
        "run_id": run.run_id,
        "pool": run.spec.target,
        "demanding": demanding(run.spec.resources),
        "priority": -run.spec.priority,
        "submitted": submitted,
    }
    _INSERT.run(conn, {**fixed, **_values(run)})


def load(conn: Connection, run_id: str) -> Run | None:
    """A run, None if unknown."""
    row = _LOAD.first(conn, {"run": run_id})
    return None if row is None else _run(row)


def save(conn: Connection, before: Run, after: Run) -> None:
    """Write what changed."""
    old, new = _plain(before), _plain(after)
    changed = {name: value for name, value in new.items() if old[name] != value}
    for name in _DOCUMENTS:
        if getattr(before, name) is not getattr(after, name):
            changed[name] = _text(after, name)
    if changed:
        _SAVE.run(conn, {"run": after.run_id, **changed})


def forget(conn: Connection, run_id: str) -> None:
    """Keep nothing of a run but that it was."""
    _FORGET.run(conn, {"run": run_id})
    _REMEMBER.run(conn, {"run_id": run_id})


def keep_ended_until(conn: Connection, deadline: float) -> None:
    """Give ended runs a time to be forgotten; an earlier release ended them without one."""
    over = and_(runs.c.state.in_(sorted(TERMINAL)), runs.c.deadline.is_(None))
    conn.execute(update(runs).where(over).values(deadline=deadline, wake_at=deadline))


def due(conn: Connection, now: float, limit: int) -> list[str]:
    """Runs whose deadline, delay or time to say something again or to be forgotten has come."""
    return [row.run_id for row in _DUE.all(conn, {"now": now, "most": limit})]


def heads(conn: Connection, pool: str) -> list[tuple[str, bool]]:
    """The first run that demands nothing and the first that does, in queue order.

    Each with whether it is demanding.
    """
    return [(row.run_id, bool(row.demanding)) for row in _HEADS.all(conn, {"pool": pool})]


def first_queued(conn: Connection, pool: str, limit: int) -> list[str]:
    """The first runs in queue order for which the pool does not grow yet."""
    rows = _FIRST_QUEUED.all(conn, {"pool": pool, "most": limit})
    return [row.run_id for row in rows]


def demand(conn: Connection, pool: str, limit: int) -> int:
    """How many runs wait for a slot, counted up to ``limit``."""
    return int(_DEMAND.scalar(conn, {"pool": pool, "most": limit}))


def live_runs(conn: Connection, pool: str, limit: int) -> int:
    """How many runs of a pool have not ended, counted up to ``limit``."""
    return int(conn.execute(_LIVE_RUNS, {"pool": pool, "most": limit}).scalar_one())


def in_state(conn: Connection, pool: str, state: RunStatus, limit: int) -> list[str]:
    """The oldest runs of a pool in a state."""
    found = _IN_STATE.all(conn, {"pool": pool, "state": state.value, "most": limit})
    return [row.run_id for row in found]


def before(conn: Connection, run_id: str, limit: int = POSITION_LIMIT) -> int:
    """How many runs of its pool's queue stand before a run, counted up to ``limit``.

    The run itself need not be in the queue yet.
    """
    place = _PLACE.first(conn, {"run": run_id})
    if place is None:
        return 0
    values = {"pool": place.pool, "priority": place.priority, "number": place.number}
    return min(limit, int(_BEFORE.scalar(conn, {**values, "most": limit})))


def hold_slot(conn: Connection, run: Run) -> None:
    """Remember the live attempt of a run that was placed."""
    needs = run.spec.resources
    values = {
        "run_id": run.run_id,
        "attempt": run.attempt,
        "pool": run.spec.target,
        "node_id": run.node_id,
        "executor_id": run.executor_id,
        "cpus": needs.cpus or 0.0,
        "memory_mb": needs.memory_mb or 0,
        "gpus": needs.gpus,
    }
    _HOLD.run(conn, values)


def release_slot(conn: Connection, run_id: str) -> None:
    """Forget a live attempt."""
    _RELEASE.run(conn, {"run": run_id})


def live_attempts(
    conn: Connection, *conditions: Any, limit: int | None = None
) -> list[LiveAttempt]:
    """Live attempts, all or those that meet the conditions."""
    query = select(*_ATTEMPT).where(*conditions).limit(limit)
    return [LiveAttempt(*row) for row in conn.execute(query)]


def live_in(conn: Connection, pool: str, limit: int) -> list[str]:
    """Some runs of a pool that hold a slot."""
    return [row.run_id for row in _ATTEMPTS_IN.all(conn, {"pool": pool, "most": limit})]


def of_runs(conn: Connection, run_ids: Sequence[str]) -> list[LiveAttempt]:
    """Live attempts of some runs."""
    return [LiveAttempt(*row) for row in _ATTEMPTS_OF.all(conn, run_ids)]


def used_resources(conn: Connection, executor_id: str) -> Resources:
    """What the live attempts on one machine asked for."""
    query = select(
        func.coalesce(func.sum(attempts.c.cpus), 0.0),
        func.coalesce(func.sum(attempts.c.memory_mb), 0),
        func.coalesce(func.sum(attempts.c.gpus), 0),
    ).where(attempts.c.executor_id == executor_id)
    cpus, memory, gpus = conn.execute(query).one()
    return Resources.model_construct(cpus=cpus, memory_mb=memory, gpus=gpus)


def remember_cancel(tx: Tx, run_id: str, reason: str) -> None:
    """A cancellation came before its submission."""
    tx.conn.execute(delete(early_cancels).where(early_cancels.c.run_id == run_id))
    tx.conn.execute(insert(early_cancels).values(run_id=run_id, reason=reason, seen_at=tx.now))


def take_cancel(tx: Tx, run_id: str) -> str | None:
    """The reason of a cancellation that came early, None if there was none."""
    reason: str | None = _EARLY_CANCEL.scalar(tx.conn, {"run": run_id})
    if reason is not None:
        tx.conn.execute(delete(early_cancels).where(early_cancels.c.run_id == run_id))
    return reason


def _values(run: Run) -> dict[str, Any]:
    return {**_plain(run), **{name: _text(run, name) for name in _DOCUMENTS}}


def _plain(run: Run) -> dict[str, Any]:
    return {
        **{name: getattr(run, name) for name in _PLAIN},
        "state": run.state.value,
        "rank": -run.spec.priority if run.placeable else None,
        "wake_at": run.wake_at,
        "needs": ",".join(sorted(run.needs)),
    }


def _text(run: Run, name: str) -> str | None:
    """A field that is a document, as its column holds it."""
    value: Any = getattr(run, name)
    if not value:
        return None
    match name:
        case "inputs":
            return _INPUTS.dump_json(dict(value)).decode()
        case "failure":
            return json.dumps(asdict(value))
        case _:
            return str(value.model_dump_json())


def _run(row: Any) -> Run:
    run = Run(_SUBMITTED.read(row.submitted), state=RunStatus(row.state))
    return replace(
        run,
        **{name: getattr(row, name) for name in _PLAIN},
        needs=frozenset(filter(None, row.needs.split(","))),
        image=_IMAGES.read(row.image) if row.image else None,
        inputs=_INPUTS.validate_json(row.inputs) if row.inputs else {},
        exit=ExitSummary.model_validate_json(row.exit) if row.exit else None,
        failure=Failure(**json.loads(row.failure)) if row.failure else None,
    )
