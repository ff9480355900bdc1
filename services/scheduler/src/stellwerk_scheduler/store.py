"""Transactions on runs: decide, write the row, emit, hold or release the slot, place.

Each method works inside the transaction it is given; ``Work`` collects what one transaction has
touched. Placement happens in the transaction of the fact that made it possible.
"""

from dataclasses import dataclass, field, replace

from stellwerk.api import QueueView
from stellwerk.events import (
    DatasetReady,
    ImageReady,
    RunCancelRequested,
    RunProvisioning,
    RunSubmitted,
)
from stellwerk.runstate import RunStatus
from stellwerk_kit.db import Tx
from stellwerk_scheduler import driven_rows, placement, pool_rows, run_rows, waiting
from stellwerk_scheduler.domain import Situation, decide, queued
from stellwerk_scheduler.endings import failed
from stellwerk_scheduler.facts import DriverEnded, Fact, Tick
from stellwerk_scheduler.model import Decision, Failure, Limits, Run, apply
from stellwerk_scheduler.scaling import Scaler

PLACEMENTS_AT_ONCE = 64
MAX_SUBMISSION_BYTES = 160 * 1024


@dataclass
class Work:
    """One transaction's context. ``causation_id`` is the fact that is being handled."""

    tx: Tx
    now: float
    causation_id: str | None = None
    pools: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class RunStore:
    """What may be done to runs. ``settle`` ends every transaction that touched a pool."""

    limits: Limits
    scaler: Scaler

    def submit(self, work: Work, submitted: RunSubmitted) -> None:
        """A run is asked for; a known id changes nothing."""
        conn, run = work.tx.conn, Run(submitted)
        if run_rows.known(conn, run.run_id):
            return
        run_rows.insert_run(conn, run)
        driven_rows.add(conn, run)
        reason = run_rows.take_cancel(work.tx, run.run_id)
        if reason is not None:
            self.advance(work, run, RunCancelRequested(run_id=run.run_id, reason=reason))
            return
        refusal = _refusal(work, run)
        self.advance(work, run, submitted, Situation(work.now, self.limits, refusal=refusal))

    def cancel(self, work: Work, fact: RunCancelRequested) -> None:
        """A run shall end; one that is not known yet ends when it is submitted."""
        run = run_rows.load(work.tx.conn, fact.run_id)
        if run is None:
            run_rows.remember_cancel(work.tx, fact.run_id, fact.reason)
            return
        self.advance(work, run, fact)

    def hear(self, work: Work, run_id: str, fact: Fact) -> Run | None:
        """A fact about a run; None if the run is not known."""
        run = run_rows.load(work.tx.conn, run_id)
        return None if run is None else self.advance(work, run, fact)

    def tick(self, work: Work, run_id: str) -> None:
        """Time has passed for a run; one that ended long ago is forgotten."""
        run = run_rows.load(work.tx.conn, run_id)
        if run is None:
            return
        if run.terminal:  # it may have ended since somebody looked whose time has come
            if run.deadline is not None and run.deadline <= work.now:
                run_rows.forget(work.tx.conn, run_id)
            return
        self.advance(work, run, Tick())

    def advance(self, work: Work, run: Run, fact: Fact, situation: Situation | None = None) -> Run:
        """Decide and carry out."""
        at = situation or Situation(work.now, self.limits, queue=self._queue(work, run, fact))
        return self.carry_out(work, run, decide(run, fact, at))

    def carry_out(self, work: Work, run: Run, decisions: list[Decision]) -> Run:
        """Write the row and emit; slots follow the row."""
        after = run
        for decision in decisions:
            after = apply(after, decision)
            if decision.event is not None:
                number = after.decided if decision.repeat else after.sequence
                work.tx.emit(decision.event, sequence=number, causation_id=work.causation_id)
        if after is run:
            return run
        if after.terminal:
            after = replace(after, deadline=work.now + self.limits.kept_s)
        run_rows.save(work.tx.conn, run, after)
        if run.placed and not after.placed:
            run_rows.release_slot(work.tx.conn, run.run_id)
            pool_rows.vacate(work.tx.conn, run.node_id or "", work.now)
        if after.placed and not run.placed:
            run_rows.hold_slot(work.tx.conn, after)
            pool_rows.occupy(work.tx.conn, after.node_id or "")
        if after.terminal and not run.terminal:
            self._ended(work, after)
        if run.placed != after.placed or run.placeable != after.placeable:
            work.pools.add(run.spec.target)
        return after

    def _ended(self, work: Work, run: Run) -> None:
        """What a run's script drove ends with it."""
        driven_rows.forget(work.tx.conn, run)
        if not run.spec.interactive:
            for child in driven_rows.of(work.tx.conn, run.run_id):
                self.hear(work, child, DriverEnded(run.outcome or "Completed"))

    def settle(self, work: Work) -> bool:
        """Place what can be placed, grow where it cannot; whether there may be more to place."""
        more = False
        for name in sorted(work.pools):
            pool = pool_rows.pool(work.tx.conn, name)
            if pool is None:
                continue
            more |= self._place(work, name)
            new = self.scaler.grow(work.tx, pool, work.now)
            if new:
                self._provisioning(work, name, new)
            else:
                self._steady(work, name)
        work.pools.clear()
        return more

    def _place(self, work: Work, pool: str) -> bool:
        """Give free slots away; whether the transaction's share was used up."""
        conn = work.tx.conn
        free = pool_rows.free_nodes(conn, pool)
        for _ in range(PLACEMENTS_AT_ONCE):
            heads = run_rows.heads(conn, pool)
            given = next(
                (node for head in heads if (node := self._give(work, *head, free)) is not None),
                None,
            )
            if given is None:
                return False
            free = placement.without_slot(free, given) or pool_rows.free_nodes(conn, pool)
        return True

    def _give(
        self, work: Work, run_id: str, demanding: bool, free: list[placement.FreeNode]
    ) -> str | None:
        """Assign one run to a node or refuse it: the node's id, '' for a refusal.

        None if it has to wait on. A demanding run that waits lets only runs pass that demand
        nothing: they take nothing it waits for, so it cannot starve.
        """
        run = run_rows.load(work.tx.conn, run_id) if free or demanding else None
        if run is None:
            return None
        node = free[0] if free else None
        if demanding:
            needs = run.spec.resources
            known = pool_rows.executors_of(work.tx.conn, run.spec.target)
            usable = [e for e in known if e.usable]
            refusal = placement.unsatisfiable(needs, [e.resources for e in usable])
            if refusal is not None:
                self.carry_out(work, run, [failed(run, refusal)])
                return ""
            node = placement.choose(needs, free, waiting.machines(work.tx.conn, usable, free))
        if node is None:
            return None
        after = self.carry_out(work, run, [placement.assign(run, node, work.now, self.limits)])
        return after.node_id or ""

    def _provisioning(self, work: Work, pool: str, slots: int) -> None:
        """The pool grows for the first runs of its queue: say so in each."""
        first = run_rows.first_queued(work.tx.conn, pool, min(slots, PLACEMENTS_AT_ONCE))
        for run_id in first:
            run = run_rows.load(work.tx.conn, run_id)
            if run is not None:
                message = f"{pool} grows for this run"
                event = RunProvisioning(run_id=run_id, pool=pool, message=message)
                self.carry_out(work, run, [Decision(event)])

    def _steady(self, work: Work, pool: str) -> None:
        """The pool grew as far as it could: who got no slot is merely queued again."""
        left = run_rows.in_state(work.tx.conn, pool, RunStatus.PROVISIONING, PLACEMENTS_AT_ONCE)
        if left and self.scaler.growing(work.tx.conn, pool):
            return
        for run_id in left:
            run = run_rows.load(work.tx.conn, run_id)
            if run is not None:
                view = waiting.view(work.tx.conn, run, work.now)
                at = Situation(work.now, self.limits, queue=view)
                self.carry_out(work, run, [queued(run, at)])

    def _queue(self, work: Work, run: Run, fact: Fact) -> QueueView | None:
        """Only a run that is queued by this fact needs the queue's situation."""
        ready = isinstance(fact, ImageReady | DatasetReady)
        if run.state != RunStatus.PREPARING or len(run.needs) > 1 or not ready:
            return None
        return waiting.view(work.tx.conn, replace(run, not_before=None), work.now)


def _refusal(work: Work, run: Run) -> Failure | None:
    """Why a submission cannot become a run that works, None if it can."""
    size = len(run.submitted.data())
    if size > MAX_SUBMISSION_BYTES:
        return Failure(
            "spec.too_large",
            f"the submission is {size} bytes; the limit is {MAX_SUBMISSION_BYTES}. Upload the "
            "source as a snapshot and pass data as datasets",
        )
    if pool_rows.pool(work.tx.conn, run.spec.target) is None:
        known = ", ".join(pool_rows.pool_names(work.tx.conn)[:20])
        return Failure(
            "compute.not_found",
            f"spec.target: there is no compute target {run.spec.target!r}. There are {known}.",
        )
    return None
