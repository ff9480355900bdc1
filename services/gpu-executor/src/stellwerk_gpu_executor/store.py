"""The executor's own store: node sets and attempts. The only SQL here."""

from dataclasses import dataclass

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    bindparam,
    insert,
    select,
    update,
)

from stellwerk.events import (
    AttemptExited,
    AttemptProgressed,
    AttemptStarted,
    ExitSummary,
    NodeJoined,
    NodeScaled,
    PoolTargetSet,
    RunAssigned,
    RunStopRequested,
)
from stellwerk_gpu_executor.domain import resize
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.prepared import Prepared

metadata = MetaData()
pools = Table(
    "pools",
    metadata,
    Column("pool", String(40), primary_key=True),
    Column("generation", Integer, nullable=False),
    Column("nodes", String, nullable=False),
)
attempts = Table(
    "attempts",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("node_id", String(40), nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("stop_reason", String(20)),
    Column("assigned", LargeBinary),
)
"""``state`` is assigned or exited; exited rows stay, so a late repeat changes nothing."""


_THIS = (attempts.c.run_id == bindparam("run")) & (attempts.c.attempt == bindparam("number"))
_ACCEPT = Prepared(insert(attempts))
_ROW = Prepared(select(attempts).where(_THIS))
_SET_STATE = Prepared(update(attempts).where(_THIS))


@dataclass(frozen=True, slots=True)
class LiveAttempt:
    """An attempt that has not exited, as stored. ``stop_reason`` is set when it shall end."""

    assigned: RunAssigned
    state: str
    stop_reason: str | None


class Store:
    """Transactions of the executor, named after intents."""

    def __init__(self, db: Database, executor_id: str, boot_id: str, max_nodes: int) -> None:
        self._db, self._executor, self._boot, self._max_nodes = db, executor_id, boot_id, max_nodes

    async def join(self, joined: NodeJoined) -> None:
        """Say that this executor is there, with the nodes it had before."""

        def work(tx: Tx) -> None:
            rows = tx.conn.execute(select(pools)).all()
            have = {row.pool: _split(row.nodes) for row in rows if row.nodes}
            tx.emit(joined.model_copy(update={"nodes": have}))

        await self._db.write(work)

    async def set_target(self, event: PoolTargetSet) -> None:
        """Bring a pool's node set to the wanted size and say what it is."""
        await self._db.write(lambda tx: self._set_target(tx, event))

    def _set_target(self, tx: Tx, event: PoolTargetSet) -> None:
        rows = {row.pool: row for row in tx.conn.execute(select(pools))}
        row = rows.get(event.pool)
        if row is not None and event.generation <= row.generation:
            return
        have = _split(row.nodes) if row else ()
        others = sum(len(_split(other.nodes)) for name, other in rows.items() if name != event.pool)
        busy = frozenset(
            tx.conn.execute(
                select(attempts.c.node_id).where(attempts.c.state != "exited")
            ).scalars()
        )
        size = min(event.size, max(len(have), self._max_nodes - others))
        nodes = resize(
            have, size, drain=event.drain, busy=busy, pool=event.pool, executor_id=self._executor
        )
        values = {"generation": event.generation, "nodes": ",".join(nodes)}
        if row is None:
            tx.conn.execute(insert(pools).values(pool=event.pool, **values))
        else:
            tx.conn.execute(update(pools).where(pools.c.pool == event.pool).values(**values))
        tx.emit(
            NodeScaled(
                executor_id=self._executor,
                boot_id=self._boot,
                pool=event.pool,
                generation=event.generation,
                from_count=len(have),
                to_count=len(nodes),
                nodes=nodes,
                reason=event.reason,
            )
        )

    async def accept(self, event: RunAssigned) -> bool:
        """Remember an assignment; False if this attempt is known already."""

        def work(tx: Tx) -> bool:
            if _row(tx.conn, event.run_id, event.attempt) is not None:
                return False
            row = {"run_id": event.run_id, "attempt": event.attempt, "node_id": event.node_id}
            _ACCEPT.insert(tx.conn, row | {"state": "assigned", "assigned": event.data()})
            return True

        return await self._db.write(work)

    async def request_stop(self, event: RunStopRequested) -> None:
        """Remember that an attempt shall end. One that was never here ended by that."""

        def work(tx: Tx) -> None:
            row = _row(tx.conn, event.run_id, event.attempt)
            where = (attempts.c.run_id == event.run_id) & (attempts.c.attempt == event.attempt)
            if row is not None:
                tx.conn.execute(update(attempts).where(where).values(stop_reason=event.reason))
                return
            tx.conn.execute(
                insert(attempts).values(
                    run_id=event.run_id,
                    attempt=event.attempt,
                    node_id=event.node_id,
                    state="exited",
                )
            )
            reason = "superseded" if event.reason == "superseded" else "canceled"
            summary = ExitSummary(
                reason=reason, message="the attempt was stopped before it came here"
            )
            tx.emit(self._exited(event.run_id, event.attempt, event.node_id, summary))

        await self._db.write(work)

    async def started(self, event: AttemptStarted) -> None:
        """The attempt's process runs."""
        await self._db.write(lambda tx: tx.emit(event))

    async def progressed(self, event: AttemptProgressed) -> None:
        """The attempt's script has got further."""
        await self._db.write(lambda tx: tx.emit(event))

    async def exited(self, assigned: RunAssigned, summary: ExitSummary) -> None:
        """The attempt is over and all it left is stored."""

        def work(tx: Tx) -> None:
            key = {"run": assigned.run_id, "number": assigned.attempt}
            _SET_STATE.run(tx.conn, key | {"state": "exited"})
            tx.emit(self._exited(assigned.run_id, assigned.attempt, assigned.node_id, summary))

        await self._db.write(work)

    async def live(self) -> list[LiveAttempt]:
        """Attempts that have not exited: after a restart, those to take up again."""
        query = select(attempts).where(attempts.c.state != "exited")

        def load(conn: Connection) -> list[LiveAttempt]:
            return [
                LiveAttempt(
                    RunAssigned.model_validate_json(row.assigned), row.state, row.stop_reason
                )
                for row in conn.execute(query)
            ]

        return await self._db.read(load)

    async def stop_reason(self, run_id: str, attempt: int) -> str | None:
        """Why an attempt shall end, None if it shall not."""
        row = await self._db.read(lambda conn: _row(conn, run_id, attempt))
        return None if row is None else row.stop_reason  # type: ignore[attr-defined]

    def _exited(self, run_id: str, attempt: int, node: str, summary: ExitSummary) -> AttemptExited:
        return AttemptExited(
            run_id=run_id, attempt=attempt, node_id=node, executor_id=self._executor, exit=summary
        )


def _row(conn: Connection, run_id: str, attempt: int) -> object | None:
    return _ROW.first(conn, {"run": run_id, "number": attempt})


def _split(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split(",")))
