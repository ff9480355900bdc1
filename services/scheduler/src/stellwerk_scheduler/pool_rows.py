"""SQL on pools, executors, their targets and nodes."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    BindParameter,
    Connection,
    Integer,
    bindparam,
    case,
    delete,
    func,
    insert,
    select,
    update,
)

from stellwerk.events import NodeJoined, NodeResources
from stellwerk_kit.db import Tx
from stellwerk_kit.prepared import Prepared
from stellwerk_scheduler.placement import FreeNode
from stellwerk_scheduler.pools import PoolNodes
from stellwerk_scheduler.tables import attempts, executors, nodes, pools, targets


@dataclass(frozen=True, slots=True)
class Executor:
    """An executor as it last presented itself."""

    executor_id: str
    boot_id: str
    hostname: str
    resources: NodeResources
    max_nodes: int
    pools: tuple[str, ...]
    draining: bool = False
    responding: bool = True

    @property
    def usable(self) -> bool:
        """Whether new work and new nodes may be given to it."""
        return self.responding and not self.draining

    def serves(self, pool: str) -> bool:
        """Whether it provides nodes for this pool."""
        return not self.pools or pool in self.pools


@dataclass(frozen=True, slots=True)
class Target:
    """How many nodes of a pool are wanted of one executor. See the table."""

    pool: str
    executor_id: str
    size: int = 0
    slots: int = 1
    generation: int = 0
    confirmed: int = 0
    tries: int = 0
    ask_at: float | None = None
    grow_after: float = 0.0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Node:
    """A row of ``nodes``."""

    node_id: str
    pool: str
    executor_id: str
    slots: int
    used: int
    state: str
    idle_since: float


# Statements are made once: building one costs as much as running it.
_BUSY = nodes.c.used > 0
_NAME: BindParameter[str] = bindparam("pool")
_POOL = Prepared(select(pools).where(pools.c.name == _NAME))
_EXECUTORS = Prepared(select(executors).order_by(executors.c.executor_id))
_BY_POOL = Prepared(select(targets).where(targets.c.pool == bindparam("key")))
_BY_EXECUTOR = Prepared(select(targets).where(targets.c.executor_id == bindparam("key")))
_FREE = Prepared(
    select(nodes.c.node_id, nodes.c.executor_id, nodes.c.slots - nodes.c.used)
    .where(nodes.c.pool == _NAME, nodes.c.state == "ready", nodes.c.used < nodes.c.slots)
    .order_by(nodes.c.used.desc(), nodes.c.node_id)
    .limit(bindparam("most", type_=Integer))
)
_FIGURES = Prepared(
    select(
        func.coalesce(func.sum(case((_BUSY, 1), else_=0)), 0),
        func.coalesce(func.sum(case((_BUSY, 0), else_=1)), 0),
        func.coalesce(func.sum(case((_BUSY, nodes.c.slots - nodes.c.used), else_=0)), 0),
    ).where(nodes.c.pool == _NAME, nodes.c.state == "ready")
)
_OCCUPY = Prepared(
    update(nodes).where(nodes.c.node_id == bindparam("node")).values(used=nodes.c.used + 1)
)
_VACATE = Prepared(
    update(nodes)
    .where(nodes.c.node_id == bindparam("node"), nodes.c.used > 0)
    .values(used=nodes.c.used - 1, idle_since=bindparam("now"))
)


def pool(conn: Connection, name: str) -> Any | None:
    """A pool's row; None if there is none or it is being deleted."""
    row = _POOL.first(conn, {"pool": name})
    return None if row is None or row.deleting else row


def all_pools(conn: Connection) -> Sequence[Any]:
    """Rows of all pools, also of those that are being deleted."""
    return conn.execute(select(pools).order_by(pools.c.name)).all()


def pool_names(conn: Connection) -> list[str]:
    """Names that a run may give as its target."""
    query = select(pools.c.name).where(pools.c.deleting.is_(False)).order_by(pools.c.name)
    return list(conn.execute(query).scalars())


def delete_pool(conn: Connection, name: str) -> None:
    """Forget a pool; its targets stay, because generations must go on."""
    conn.execute(delete(pools).where(pools.c.name == name))


def remember_executor(conn: Connection, joined: NodeJoined) -> None:
    """An executor presented itself."""
    values = {
        "boot_id": joined.boot_id,
        "hostname": joined.hostname,
        "resources": joined.resources.model_dump_json(),
        "max_nodes": joined.max_nodes,
        "pools": json.dumps(joined.pools),
        "draining": False,
        "responding": True,
    }
    where = executors.c.executor_id == joined.executor_id
    if conn.execute(update(executors).where(where).values(**values)).rowcount == 0:
        conn.execute(insert(executors).values(executor_id=joined.executor_id, **values))


def mark_executor(conn: Connection, executor_id: str, **flags: bool) -> None:
    """Set ``draining`` or ``responding``."""
    where = executors.c.executor_id == executor_id
    conn.execute(update(executors).where(where).values(**flags))


def executor(conn: Connection, executor_id: str) -> Executor | None:
    """An executor, None if it never joined."""
    row = conn.execute(select(executors).where(executors.c.executor_id == executor_id)).first()
    return None if row is None else _executor(row)


def executors_of(conn: Connection, pool_name: str) -> list[Executor]:
    """Executors that provide nodes for a pool, also those that are silent or leave."""
    rows = _EXECUTORS.all(conn, {})
    return [found for found in map(_executor, rows) if found.serves(pool_name)]


def target(conn: Connection, pool_name: str, executor_id: str) -> Target:
    """The target of one executor; an empty one if nothing was ever asked of it."""
    where = (targets.c.pool == pool_name) & (targets.c.executor_id == executor_id)
    row = conn.execute(select(targets).where(where)).first()
    return Target(pool_name, executor_id) if row is None else Target(*row)


def targets_of(conn: Connection, *, pool_name: str = "", executor_id: str = "") -> list[Target]:
    """Targets of a pool or of an executor."""
    query, key = (_BY_POOL, pool_name) if pool_name else (_BY_EXECUTOR, executor_id)
    return [Target(*row) for row in query.all(conn, {"key": key})]


def room(conn: Connection, executor: Executor, pool_name: str, now: float) -> int:
    """How many more nodes of a pool an executor could be asked for now."""
    rows = targets_of(conn, executor_id=executor.executor_id)
    if any(row.pool == pool_name and row.grow_after > now for row in rows):
        return 0
    return max(0, executor.max_nodes - sum(row.size for row in rows))


def unanswered(conn: Connection, now: float) -> list[Target]:
    """Targets that should have been answered by now."""
    return [Target(*row) for row in conn.execute(select(targets).where(targets.c.ask_at <= now))]


def save_target(conn: Connection, row: Target) -> None:
    """Insert or update a target."""
    where = (targets.c.pool == row.pool) & (targets.c.executor_id == row.executor_id)
    if conn.execute(update(targets).where(where).values(**asdict(row))).rowcount == 0:
        conn.execute(insert(targets).values(**asdict(row)))


def free_nodes(conn: Connection, pool_name: str, limit: int = 32) -> list[FreeNode]:
    """Nodes with a free slot, the fullest first so that others become idle."""
    rows = _FREE.all(conn, {"pool": pool_name, "most": limit})
    return [FreeNode(*row) for row in rows]


def figures(conn: Connection, pool_name: str) -> PoolNodes:
    """A pool's usable nodes in figures."""
    return PoolNodes(*_FIGURES.all(conn, {"pool": pool_name})[0])


def nodes_of(conn: Connection, *, pool_name: str = "", executor_id: str = "") -> list[Node]:
    """Nodes of a pool, of an executor, or of an executor in a pool."""
    query = select(nodes).order_by(nodes.c.node_id)
    if pool_name:
        query = query.where(nodes.c.pool == pool_name)
    if executor_id:
        query = query.where(nodes.c.executor_id == executor_id)
    return [Node(*row) for row in conn.execute(query)]


def replace_nodes(
    tx: Tx, have: Sequence[Node], names: Sequence[str], fresh: Node, *, keep_leaving: bool
) -> None:
    """An executor's nodes of a pool are ``names`` from now on; ``fresh`` is the pattern of one.

    A node that comes back counts the live attempts it has. ``keep_leaving``: what was told to go
    since then stays so.
    """
    known = {node.node_id: node for node in have}
    gone = [name for name in known if name not in names]
    if gone:
        tx.conn.execute(delete(nodes).where(nodes.c.node_id.in_(gone)))
    for name in names:
        node = known.get(name)
        if node is not None and (node.state == "ready" or (keep_leaving and node.state != "lost")):
            continue
        used = attempts_on(tx.conn, name)
        row = asdict(replace(fresh, node_id=name, used=used))
        tx.conn.execute(delete(nodes).where(nodes.c.node_id == name))
        tx.conn.execute(insert(nodes).values(**row))


def attempts_on(conn: Connection, node_id: str) -> int:
    """How many live attempts a node has."""
    query = select(func.count()).select_from(attempts).where(attempts.c.node_id == node_id)
    return conn.execute(query).scalar() or 0


def attempts_at(conn: Connection, executor_id: str) -> int:
    """How many live attempts an executor has."""
    query = select(func.count()).select_from(attempts).where(attempts.c.executor_id == executor_id)
    return conn.execute(query).scalar() or 0


def occupy(conn: Connection, node_id: str) -> None:
    """One slot more is used."""
    _OCCUPY.run(conn, {"node": node_id})


def vacate(conn: Connection, node_id: str, now: float) -> None:
    """One slot less is used; the node's idle time begins anew."""
    _VACATE.run(conn, {"node": node_id, "now": now})


def set_node_state(conn: Connection, node_ids: Sequence[str], state: str) -> None:
    """Nodes become ready, leaving or lost."""
    conn.execute(update(nodes).where(nodes.c.node_id.in_(node_ids)).values(state=state))


@lru_cache(maxsize=256)
def _resources(text: str) -> NodeResources:
    """A machine's resources rarely change and are read with each decision about its pool."""
    return NodeResources.model_validate_json(text)


def _executor(row: Any) -> Executor:
    return Executor(
        executor_id=row.executor_id,
        boot_id=row.boot_id,
        hostname=row.hostname,
        resources=_resources(row.resources),
        max_nodes=row.max_nodes,
        pools=tuple(json.loads(row.pools)),
        draining=row.draining,
        responding=row.responding,
    )
