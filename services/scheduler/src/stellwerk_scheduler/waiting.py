"""Reads that explain a queue: the situation of a pool as ``queueing`` needs it."""

from collections.abc import Sequence

from sqlalchemy import Connection

from stellwerk.api import QueueView
from stellwerk_scheduler import placement, pool_rows, queueing, run_rows
from stellwerk_scheduler.model import Run

SHOWN_RUNS = 5


def view(conn: Connection, run: Run, now: float) -> QueueView:
    """Why a run waits, or would wait if it were queued now."""
    state = pool_state(conn, run.spec.target, now)
    if run.not_before is not None:
        return queueing.delayed(state, run.attempt + 1, run.not_before - now)
    ahead = run_rows.before(conn, run.run_id)
    capped = ahead >= run_rows.POSITION_LIMIT
    return queueing.explain(state, ahead, capped=capped, lacks=_lacks(conn, run))


def pool_state(conn: Connection, name: str, now: float) -> queueing.PoolState:
    """The figures of a pool."""
    pool = pool_rows.pool(conn, name)
    nodes = pool_rows.figures(conn, name)
    executors = pool_rows.executors_of(conn, name)
    usable = {e.executor_id for e in executors if e.usable}
    targets = [t for t in pool_rows.targets_of(conn, pool_name=name) if t.executor_id in usable]
    size = sum(t.size for t in targets)
    have, slots = nodes.busy + nodes.idle, pool.slots_per_node if pool is not None else 1
    owed = any(t.ask_at is not None for t in targets) and size > have
    return queueing.PoolState(
        pool=name,
        max_nodes=pool.max_nodes if pool is not None else 0,
        nodes=have,
        free_slots=nodes.idle * slots + nodes.free_on_busy,
        growing_to=size if owed else None,
        room=sum(pool_rows.room(conn, e, name, now) for e in executors if e.usable),
        executors=len(usable),
        silent=len(executors) - len(usable),
        running=() if nodes.idle else tuple(run_rows.live_in(conn, name, SHOWN_RUNS)),
    )


def machines(
    conn: Connection,
    known: Sequence[pool_rows.Executor],
    free: Sequence[placement.FreeNode],
) -> dict[str, placement.Machine]:
    """The machines of free nodes with what is used of them."""
    names = {node.executor_id for node in free}
    return {
        e.executor_id: placement.Machine(e.resources, run_rows.used_resources(conn, e.executor_id))
        for e in known
        if e.executor_id in names
    }


def _lacks(conn: Connection, run: Run) -> str:
    """What all machines with a free slot have too little of; empty if one has enough."""
    needs = run.spec.resources
    if not run_rows.demanding(needs):
        return ""
    free = pool_rows.free_nodes(conn, run.spec.target)
    known = pool_rows.executors_of(conn, run.spec.target)
    found = machines(conn, known, free).values()
    reasons = [placement.lacking(needs, machine.resources, machine.used) for machine in found]
    return reasons[0] if reasons and all(reasons) else ""
