"""The decider: what becomes of a run when a fact about it is known. Pure.

``decide`` covers the rows of the state machine's table except those about pools and placement
(``pools.py``, ``placement.py``). A fact that comes twice, too late or about another attempt finds
the row moved on and yields no decision.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from stellwerk.api import QueueView
from stellwerk.events import (
    ArchiveFailed,
    AttemptExited,
    AttemptLost,
    AttemptStarted,
    DatasetFailed,
    DatasetReady,
    ImageFailed,
    ImageReady,
    RunArchived,
    RunCancelRequested,
    RunEndReported,
    RunPreparing,
    RunQueued,
    RunStarted,
    RunStopRequested,
    RunSubmitted,
)
from stellwerk.runstate import BEFORE_ATTEMPT, RunStatus
from stellwerk_scheduler import endings, interactive, ticks
from stellwerk_scheduler.facts import Drained, DriverEnded, Fact, LeaseExpired, Tick
from stellwerk_scheduler.model import Decision, Failure, Limits, Need, Run
from stellwerk_scheduler.retries import LOST, RULES, failure_of

Decisions = list[Decision]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision may need to know besides the run: its pool's queue, why it is refused."""

    now: float
    limits: Limits
    queue: QueueView | None = None
    refusal: Failure | None = None


def decide(run: Run, fact: Fact, situation: Situation) -> Decisions:
    """Decisions in the order they are to be applied; none where the fact changes nothing."""
    if run.terminal:
        return []
    return _DECIDERS[type(fact)](run, fact, situation)


def _submitted(run: Run, _: RunSubmitted, at: Situation) -> Decisions:
    if run.state != RunStatus.NOT_STARTED:
        return []
    if at.refusal is not None:
        return [endings.failed(run, at.refusal)]
    if run.spec.interactive:
        return [interactive.begun(run, at.now)]
    needs: set[Need] = {"image", "dataset"} if run.spec.inputs else {"image"}
    return [_preparing(run, frozenset(needs), at)]


def _preparing(run: Run, needs: frozenset[Need], at: Situation) -> Decision:
    limits = at.limits
    changes = {
        "needs": needs,
        "deadline": at.now + limits.prepare_s,
        "resend_at": at.now + limits.resend_s,
        "resends": 0,
        "not_before": None,
    }
    return Decision(preparing_event(run), changes)


def preparing_event(run: Run) -> RunPreparing:
    """RunPreparing of a run, the same every time."""
    return RunPreparing(
        run_id=run.run_id,
        experiment=run.submitted.experiment,
        environment=run.spec.environment,
        environment_pin=run.spec.environment_pin,
        inputs=run.spec.inputs,
    )


def _driver_ended(run: Run, fact: DriverEnded, at: Situation) -> Decisions:
    if not run.spec.interactive or run.state != RunStatus.RUNNING:
        return []
    return [interactive.left(run, fact.outcome, at.now, at.limits)]


def _image_ready(run: Run, fact: ImageReady, at: Situation) -> Decisions:
    return _met(run, "image", {"image": fact.image}, at)


def _dataset_ready(run: Run, fact: DatasetReady, at: Situation) -> Decisions:
    return _met(run, "dataset", {"inputs": fact.inputs}, at)


def _met(run: Run, need: Need, changes: dict[str, Any], at: Situation) -> Decisions:
    if run.state != RunStatus.PREPARING or need not in run.needs:
        return []
    remaining = run.needs - {need}
    if remaining:
        return [Decision(None, {**changes, "needs": remaining})]
    return [queued(run, at, {**changes, "needs": remaining})]


def queued(run: Run, at: Situation, changes: Mapping[str, Any] | None = None) -> Decision:
    """RunQueued with the pool's present situation."""
    view = at.queue or QueueView(
        pool=run.spec.target, position=1, reason="waiting", message="waits for a slot", unblock=""
    )
    event = RunQueued(
        run_id=run.run_id,
        pool=view.pool,
        reason=view.reason,
        message=view.message,
        position=view.position,
    )
    return Decision(event, {"deadline": None, "resend_at": None, "resends": 0, **(changes or {})})


def _image_failed(run: Run, fact: ImageFailed, _: Situation) -> Decisions:
    return _unprepared(run, "image", Failure(fact.code, fact.message))


def _dataset_failed(run: Run, fact: DatasetFailed, _: Situation) -> Decisions:
    return _unprepared(run, "dataset", Failure(fact.code, f"inputs.{fact.input}: {fact.message}"))


def _unprepared(run: Run, need: Need, failure: Failure) -> Decisions:
    if run.state != RunStatus.PREPARING or need not in run.needs:
        return []
    return [endings.failed(run, failure)]


def _cancel(run: Run, fact: RunCancelRequested, at: Situation) -> Decisions:
    if run.cancel_requested:
        return []
    failure = _blamed(fact) if run.state != RunStatus.FINALIZING else run.failure
    wanted = Decision(None, {"cancel_requested": True, "failure": failure})
    if run.state in BEFORE_ATTEMPT:
        ended = endings.failed(run, failure) if failure else endings.canceled(run, fact.reason)
        return [wanted, ended]
    if run.placed:
        deadline = at.now + run.spec.grace_s + at.limits.cancel_s
        return [wanted, endings.stop(run, "canceled", at.now, at.limits, deadline)]
    if run.state == RunStatus.RUNNING:
        after = replace(run, failure=failure)
        return [wanted, endings.stopped(after, at.now, at.limits)]
    return [wanted]


def _blamed(fact: RunCancelRequested) -> Failure | None:
    if fact.outcome != "Failed":
        return None
    return Failure(fact.code or "run.failed", fact.reason or "it was ended as failed from outside")


def _end_reported(run: Run, fact: RunEndReported, at: Situation) -> Decisions:
    if not run.spec.interactive or run.state != RunStatus.RUNNING:
        return []
    return [interactive.reported(run, fact, at.now, at.limits)]


def _started(run: Run, fact: AttemptStarted, at: Situation) -> Decisions:
    current = fact.attempt == run.attempt
    if current and run.state == RunStatus.STARTING:
        limit = run.spec.max_duration_s + run.spec.grace_s + at.limits.running_margin_s
        changes: dict[str, Any] = {}
        if run.stopping is None:
            changes = {"deadline": at.now + limit, "resend_at": None, "resends": 0}
        event = RunStarted(
            run_id=run.run_id, attempt=fact.attempt, node_id=fact.node_id, start=fact.start
        )
        return [Decision(event, changes)]
    if current and (run.placed or run.exit is not None):
        return []
    zombie = RunStopRequested(
        run_id=run.run_id,
        attempt=fact.attempt,
        node_id=fact.node_id,
        executor_id=fact.executor_id,
        reason="superseded",
        grace_s=min(5.0, run.spec.grace_s),
    )
    return [Decision(zombie)]


def _exited(run: Run, fact: AttemptExited, at: Situation) -> Decisions:
    if fact.attempt != run.attempt or not run.placed:
        return []
    summary = fact.exit
    if run.cancel_requested:
        return [endings.stopped(run, at.now, at.limits, summary)]
    if summary.succeeded:
        return [endings.finalizing(run, "Completed", at.now, at.limits, summary)]
    failure, budget = failure_of(summary), RULES[summary.reason].budget
    if run.stopping == "timeout":
        failure, budget = Failure("run.timeout", failure.message), "none"
    retry = endings.retrying(run, budget, failure, at.now, at.limits)
    if retry is None:
        return [endings.finalizing(run, "Failed", at.now, at.limits, summary, failure)]
    if summary.reason == "environment-missing":
        return [retry, _preparing(run, frozenset({"image"}), at)]
    return [retry]


def _lease_expired(run: Run, fact: LeaseExpired, at: Situation) -> Decisions:
    if fact.attempt != run.attempt or not run.placed:
        return []
    node = run.node_id or ""
    lost = Decision(AttemptLost(run_id=run.run_id, attempt=run.attempt, node_id=node))
    if run.cancel_requested:
        return [lost, endings.stopped(run, at.now, at.limits)]
    failure = Failure(LOST.code, LOST.text.format(attempt=run.attempt, node=node))
    retry = endings.retrying(run, LOST.budget, failure, at.now, at.limits)
    if retry is None:
        retry = endings.finalizing(run, "Failed", at.now, at.limits, None, failure)
    return [lost, retry]


def _drained(run: Run, _: Drained, at: Situation) -> Decisions:
    if not run.placed or run.stopping is not None:
        return []
    return [endings.stop(run, "superseded", at.now, at.limits, run.deadline)]


def _archived(run: Run, fact: RunArchived, _: Situation) -> Decisions:
    if run.state != RunStatus.FINALIZING or fact.attempt != run.attempt:
        return []
    return [endings.ended(run)]


def _archive_failed(run: Run, fact: ArchiveFailed, _: Situation) -> Decisions:
    if run.state != RunStatus.FINALIZING or fact.attempt != run.attempt:
        return []
    return [endings.ended(run, Failure(fact.code, fact.message))]


def _tick(run: Run, _: Tick, at: Situation) -> Decisions:
    if run.deadline is not None and run.deadline <= at.now:
        return ticks.overdue(run, at.now, at.limits)
    if run.not_before is not None and run.not_before <= at.now:
        return [Decision(None, {"not_before": None})]
    if run.resend_at is None or run.resend_at > at.now:
        return []
    if run.state == RunStatus.PREPARING:
        return [ticks.repeat(run, preparing_event(run), at.now, at.limits)]
    return ticks.resend(run, at.now, at.limits)


_DECIDERS: dict[type[Any], Callable[[Run, Any, Situation], Decisions]] = {
    RunSubmitted: _submitted,
    RunCancelRequested: _cancel,
    RunEndReported: _end_reported,
    ImageReady: _image_ready,
    ImageFailed: _image_failed,
    DatasetReady: _dataset_ready,
    DatasetFailed: _dataset_failed,
    AttemptStarted: _started,
    AttemptExited: _exited,
    RunArchived: _archived,
    ArchiveFailed: _archive_failed,
    LeaseExpired: _lease_expired,
    Drained: _drained,
    DriverEnded: _driver_ended,
    Tick: _tick,
}
