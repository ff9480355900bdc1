"""What the scheduler does with each event: one transaction per fact.

Each checks the inbox, lets the store decide and carry out, and settles the pools it touched. The
message is acknowledged after the commit.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stellwerk.events import (
    ArchiveFailed,
    AttemptExited,
    AttemptStarted,
    DatasetFailed,
    DatasetReady,
    Envelope,
    Event,
    ImageFailed,
    ImageReady,
    NodeDraining,
    NodeJoined,
    NodeScaled,
    RunArchived,
    RunCancelRequested,
    RunEndReported,
    RunSubmitted,
)
from stellwerk_kit.consumer import Handlers
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.failpoints import failpoint
from stellwerk_scheduler import pool_rows, run_rows
from stellwerk_scheduler.facts import Drained
from stellwerk_scheduler.scaling import Scaler
from stellwerk_scheduler.store import RunStore, Work
from stellwerk_scheduler.tables import attempts

CONSUMER = "scheduler-facts"
OfRuns = ImageReady | ImageFailed
OfRun = (
    RunEndReported
    | DatasetReady
    | DatasetFailed
    | AttemptStarted
    | AttemptExited
    | RunArchived
    | ArchiveFailed
)


@dataclass(frozen=True, slots=True)
class FactHandlers:
    """``now`` gives service seconds; ``hint`` wakes the reconcile loop."""

    db: Database
    store: RunStore
    scaler: Scaler
    now: Callable[[], float]
    hint: Callable[[], None]

    def table(self) -> Handlers:
        """Event class → handler."""
        classes: tuple[type[Event], ...] = (
            RunSubmitted,
            RunCancelRequested,
            RunEndReported,
            ImageReady,
            ImageFailed,
            DatasetReady,
            DatasetFailed,
            AttemptStarted,
            AttemptExited,
            RunArchived,
            ArchiveFailed,
            NodeJoined,
            NodeScaled,
            NodeDraining,
        )
        return dict.fromkeys(classes, self.handle)

    async def handle(self, envelope: Envelope) -> None:
        """Handle one fact once."""
        now = self.now()
        failpoint("scheduler.before_commit")
        if await self.db.write(lambda tx: self.handle_in(tx, envelope, now)):
            self.hint()
        failpoint("scheduler.after_commit")

    def handle_in(self, tx: Tx, envelope: Envelope, now: float) -> bool:
        """The transaction; whether more can be placed than one transaction does."""
        if not tx.first_time(CONSUMER, envelope.id):
            return False
        work = Work(tx, now, causation_id=envelope.id)
        self._apply(work, envelope.event)
        return self.store.settle(work)

    def _apply(self, work: Work, fact: Event) -> None:
        match fact:
            case RunSubmitted():
                self.store.submit(work, fact)
            case RunCancelRequested():
                self.store.cancel(work, fact)
            case ImageReady() | ImageFailed():
                for run_id in fact.run_ids:
                    self.store.hear(work, run_id, fact)
            case NodeJoined():
                work.pools |= self.scaler.joined(work.tx, fact, work.now)
            case NodeScaled():
                work.pools |= self.scaler.answered(work.tx, fact, work.now)
            case NodeDraining():
                self._draining(work, fact)
            case _:
                self._of_run(work, fact)

    def _of_run(self, work: Work, fact: Event) -> None:
        if isinstance(fact, OfRun):
            self.store.hear(work, fact.run_id, fact)

    def _draining(self, work: Work, fact: NodeDraining) -> None:
        """No more work for that executor; runs of low-priority pools move elsewhere."""
        found = pool_rows.executor(work.tx.conn, fact.executor_id)
        if found is None or found.boot_id != fact.boot_id:
            return
        pool_rows.mark_executor(work.tx.conn, fact.executor_id, draining=True)
        nodes = pool_rows.nodes_of(work.tx.conn, executor_id=fact.executor_id)
        pool_rows.set_node_state(work.tx.conn, [node.node_id for node in nodes], "leaving")
        work.pools |= {node.pool for node in nodes}
        mine = attempts.c.executor_id == fact.executor_id
        for attempt in run_rows.live_attempts(work.tx.conn, mine):
            pool = pool_rows.pool(work.tx.conn, attempt.pool)
            if pool is not None and pool.vm_priority == "lowpriority":
                self.store.hear(work, attempt.run_id, Drained())
