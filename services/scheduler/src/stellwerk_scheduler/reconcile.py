"""The level-triggered loop: leases, deadlines, delays, targets, idle nodes.

A round takes no input: it looks at the rows and at the time. It repeats what was not acted on
and ends what lasts too long, so nothing depends on a message that was lost.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog
from sqlalchemy import Connection

from stellwerk_kit.db import Database, Tx
from stellwerk_kit.failpoints import failpoint
from stellwerk_scheduler import pool_rows, run_rows, service_state
from stellwerk_scheduler.facts import LeaseExpired
from stellwerk_scheduler.leases import Leases
from stellwerk_scheduler.run_rows import LiveAttempt
from stellwerk_scheduler.scaling import Scaler
from stellwerk_scheduler.store import RunStore, Work
from stellwerk_scheduler.uptime import Uptime

DUE_AT_ONCE = 200

log = structlog.get_logger()


@dataclass
class Reconciler:
    """``save_every_s``: how often the service clock is written down."""

    db: Database
    store: RunStore
    scaler: Scaler
    leases: Leases
    uptime: Uptime
    save_every_s: float
    _outages: int = 0
    _saved: float = field(default=0.0)

    async def sweep(self) -> None:
        """One round."""
        now = self.uptime.now()
        if self.uptime.outages != self._outages:
            self._outages = self.uptime.outages
            log.info("leases begin anew after an outage", action="lease_grace")
            self.leases.grace(now)
        live, due = await self.db.read(lambda conn: self._look(conn, now))
        condemned = set(self.leases.expired((attempt.key for attempt in live), now))
        failpoint("scheduler.before_sweep")
        await self._each(
            *(
                lambda tx, lost=attempt: self._lose(tx, lost, now)
                for attempt in live
                if attempt.key in condemned
            ),
            *(lambda tx, run_id=run_id: self._tick(tx, run_id, now) for run_id in due),
            lambda tx: self._pools(tx, now),
        )

    async def stop(self) -> None:
        """Write the service clock down."""
        now = self.uptime.now()
        await self.db.write(lambda tx: service_state.save_elapsed(tx.conn, now))

    async def _each(self, *works: Callable[[Tx], None]) -> None:
        """Carry out all, in order and mostly in one commit; one that fails fails alone."""
        results = await asyncio.gather(
            *(self.db.write(work) for work in works), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                log.error("part of a round failed", action="sweep_failed", exc_info=error)

    def _lose(self, tx: Tx, lost: LiveAttempt, now: float) -> None:
        work = Work(tx, now)
        self.store.hear(work, lost.run_id, LeaseExpired(lost.attempt))
        work.pools |= self.scaler.lost_attempt(tx, lost.node_id, lost.executor_id, now)
        self.store.settle(work)

    def _tick(self, tx: Tx, run_id: str, now: float) -> None:
        work = Work(tx, now)
        self.store.tick(work, run_id)
        self.store.settle(work)

    def _pools(self, tx: Tx, now: float) -> None:
        work = Work(tx, now)
        work.pools |= self.scaler.ask_again(tx, now)
        for pool in pool_rows.all_pools(tx.conn):
            self.scaler.shrink(tx, pool, now)
            if pool.deleting:
                self._finish_deletion(tx, pool.name)
            work.pools.add(pool.name)
        self.store.settle(work)
        service_state.forget_old(tx)
        if now - self._saved >= self.save_every_s:
            service_state.save_elapsed(tx.conn, now)
            self._saved = now

    def _look(self, conn: Connection, now: float) -> tuple[list[LiveAttempt], list[str]]:
        return run_rows.live_attempts(conn), run_rows.due(conn, now, DUE_AT_ONCE)

    def _finish_deletion(self, tx: Tx, name: str) -> None:
        left = pool_rows.nodes_of(tx.conn, pool_name=name)
        if all(node.state == "lost" for node in left):
            pool_rows.delete_pool(tx.conn, name)
