"""Request/reply about clusters (pools): create, get, list, update, delete."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import Field
from sqlalchemy import Connection, insert, update

from stellwerk.api import ComputePatch, ComputeRequest, ComputeView, NodeView, Page
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.runspec import Spec
from stellwerk_kit.db import Database, Tx
from stellwerk_scheduler import pool_rows, run_rows
from stellwerk_scheduler.scaling import Scaler
from stellwerk_scheduler.store import RunStore, Work
from stellwerk_scheduler.tables import attempts, pools

COUNT_LIMIT = 1_000_000
LOCAL = "local"
_STATES = {"leaving": "leaving", "lost": "unusable"}


class ComputeName(Spec):
    """Request of ``compute-get`` and ``compute-delete``."""

    name: Annotated[str, Field(max_length=255)]


class ComputeList(Spec):
    """Request of ``compute-list``; ``cursor`` is the last name of the page before."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: Annotated[str, Field(max_length=255)] | None = None


class ComputeUpdate(Spec):
    """Request of ``compute-update``."""

    name: Annotated[str, Field(max_length=255)]
    patch: ComputePatch


@dataclass(frozen=True, slots=True)
class Compute:
    """``now`` gives service seconds."""

    db: Database
    store: RunStore
    scaler: Scaler
    now: Callable[[], float]

    async def create(self, request: ComputeRequest) -> ComputeView:
        """Make a cluster; the same request again answers the one that is there.

        Raises ConflictError where the name is taken by another one.
        """
        _check_sizes(request.min_nodes, request.max_nodes)
        now = self.now()
        return await self.db.write(lambda tx: self._create(tx, request, now))

    async def get(self, request: ComputeName) -> ComputeView:
        """One cluster; raises NotFoundError."""
        return await self.db.read(lambda conn: view(conn, _existing(conn, request.name)))

    async def list_all(self, request: ComputeList) -> Page[ComputeView]:
        """Clusters by name."""

        def look(conn: Connection) -> Page[ComputeView]:
            rows = [
                row
                for row in pool_rows.all_pools(conn)
                if not row.deleting and row.name > (request.cursor or "")
            ]
            shown = rows[: request.limit]
            more = len(rows) > len(shown)
            return Page[ComputeView](
                items=tuple(view(conn, row) for row in shown),
                next_cursor=shown[-1].name if more else None,
            )

        return await self.db.read(look)

    async def update(self, request: ComputeUpdate) -> ComputeView:
        """Change a cluster's limits; they act at once."""
        now = self.now()
        return await self.db.write(lambda tx: self._update(tx, request, now))

    async def delete(self, request: ComputeName) -> ComputeView:
        """Delete a cluster without live runs; its nodes are given back.

        Raises ConflictError while runs wait or run there, and for the built-in one.
        """
        now = self.now()
        return await self.db.write(lambda tx: self._delete(tx, request.name, now))

    def _create(self, tx: Tx, request: ComputeRequest, now: float) -> ComputeView:
        values = {
            **request.model_dump(exclude={"idle_seconds_before_scaledown", "tags", "name"}),
            "idle_seconds": request.idle_seconds_before_scaledown,
            "tags": json.dumps(request.tags),
        }
        found = pool_rows.pool(tx.conn, request.name)
        if found is not None:
            if any(getattr(found, name) != value for name, value in values.items()):
                raise ConflictError(
                    f"name: there is a compute target {request.name!r} with other settings; "
                    "take another name, or update or delete that one",
                    code="compute.exists",
                    field="name",
                )
            return view(tx.conn, found)
        pool_rows.delete_pool(tx.conn, request.name)
        times = {"created_at": tx.now, "modified_at": tx.now}
        tx.conn.execute(
            insert(pools).values(
                name=request.name, builtin=False, deleting=False, **values, **times
            )
        )
        self.store.settle(Work(tx, now, pools={request.name}))
        return view(tx.conn, _existing(tx.conn, request.name))

    def _update(self, tx: Tx, request: ComputeUpdate, now: float) -> ComputeView:
        found, patch = _existing(tx.conn, request.name), request.patch
        known = {
            "min_nodes": patch.min_nodes,
            "max_nodes": patch.max_nodes,
            "idle_seconds": patch.idle_seconds_before_scaledown,
        }
        given: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
        _check_sizes(
            given.get("min_nodes", found.min_nodes), given.get("max_nodes", found.max_nodes)
        )
        where = pools.c.name == request.name
        tx.conn.execute(update(pools).where(where).values(**given, modified_at=tx.now))
        self.scaler.shrink(tx, _existing(tx.conn, request.name), now)
        self.store.settle(Work(tx, now, pools={request.name}))
        return view(tx.conn, _existing(tx.conn, request.name))

    def _delete(self, tx: Tx, name: str, now: float) -> ComputeView:
        found = _existing(tx.conn, name)
        if found.builtin:
            raise ConflictError(
                f"name: {name!r} is built in and stays", code="compute.builtin", field="name"
            )
        live = run_rows.live_runs(tx.conn, name, COUNT_LIMIT)
        if live:
            raise ConflictError(
                f"name: {name!r} has {live} runs that have not ended; cancel them first",
                code="compute.in_use",
                field="name",
            )
        last = view(tx.conn, found)
        tx.conn.execute(update(pools).where(pools.c.name == name).values(deleting=True))
        self.scaler.release(tx, name, now)
        return last


def ensure_local(tx: Tx, max_nodes: int, idle_seconds: int) -> None:
    """The built-in pool exists; the limits are those it gets when it is made."""
    if pool_rows.pool(tx.conn, LOCAL) is not None:
        return
    limits = {"min_nodes": 0, "max_nodes": max_nodes, "idle_seconds": idle_seconds}
    fixed = {"vm_size": "LOCAL", "vm_priority": "dedicated", "slots_per_node": 1}
    times = {"created_at": tx.now, "modified_at": tx.now}
    row = {"name": LOCAL, "builtin": True, "deleting": False, "tags": "{}"}
    tx.conn.execute(insert(pools).values(**row, **fixed, **limits, **times))


def view(conn: Connection, row: Any) -> ComputeView:
    """A cluster as users see it."""
    nodes = pool_rows.nodes_of(conn, pool_name=row.name)
    live = run_rows.live_attempts(conn, attempts.c.pool == row.name)
    targets = pool_rows.targets_of(conn, pool_name=row.name)
    usable = [e for e in pool_rows.executors_of(conn, row.name) if e.usable]
    names = {e.executor_id for e in usable}
    size = sum(t.size for t in targets if t.executor_id in names)
    current = sum(node.state != "lost" for node in nodes)
    room = sum(e.max_nodes for e in usable)
    message = None
    if not usable:
        message = "no executor provides nodes for this cluster"
    elif room < row.max_nodes:
        message = f"the executors that are there provide at most {room} nodes"
    return ComputeView(
        name=row.name,
        vm_size=row.vm_size,
        vm_priority=row.vm_priority,
        min_nodes=row.min_nodes,
        max_nodes=row.max_nodes,
        idle_seconds_before_scaledown=row.idle_seconds,
        slots_per_node=row.slots_per_node,
        description=row.description,
        tags=json.loads(row.tags),
        current_nodes=current,
        target_nodes=size,
        queued_runs=run_rows.demand(conn, row.name, COUNT_LIMIT),
        nodes=tuple(_node(node, live) for node in nodes),
        created_at=_utc(row.created_at),
        modified_at=_utc(row.modified_at),
        allocation_state="Steady" if size == current else "Resizing",
        message=message,
    )


def _utc(time: datetime) -> datetime:
    """SQLite gives times back without their zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _node(node: pool_rows.Node, live: list[run_rows.LiveAttempt]) -> NodeView:
    state: Any = _STATES.get(node.state, "running" if node.used else "idle")
    return NodeView(
        node_id=node.node_id,
        executor_id=node.executor_id,
        state=state,
        runs=tuple(a.run_id for a in live if a.node_id == node.node_id),
    )


def _existing(conn: Connection, name: str) -> Any:
    row = pool_rows.pool(conn, name)
    if row is None:
        known = ", ".join(pool_rows.pool_names(conn)[:20])
        raise NotFoundError(
            f"there is no compute target {name!r}. There are {known}.",
            code="compute.not_found",
            field="name",
        )
    return row


def _check_sizes(smallest: int, largest: int) -> None:
    if smallest > largest:
        raise UserError(
            f"min_nodes: got {smallest}; it may be at most max_nodes, {largest}",
            code="compute.sizes",
            field="min_nodes",
        )
