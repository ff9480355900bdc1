"""Decisions that end an attempt or a run. Pure."""

from typing import Any

from stellwerk.events import (
    ExitSummary,
    RunAssigned,
    RunCanceled,
    RunCompleted,
    RunFailed,
    RunFinalizing,
    RunRetrying,
    RunStopRequested,
)
from stellwerk.events.run import StopReason
from stellwerk.runspec import SnapshotSource
from stellwerk_scheduler.model import Decision, Failure, Limits, Outcome, Run
from stellwerk_scheduler.retries import Budget, delay_s, left

NO_TIMERS: dict[str, Any] = {
    "deadline": None,
    "resend_at": None,
    "resends": 0,
    "not_before": None,
    "stopping": None,
}
UNPLACED: dict[str, Any] = {"node_id": None, "executor_id": None}
MAX_EXIT_CHARS = 64 * 1024


def failed(run: Run, failure: Failure) -> Decision:
    """RunFailed."""
    event = RunFailed(**_terminal(run), code=failure.code, message=failure.message[:4000])
    return Decision(event, {**NO_TIMERS, **UNPLACED, "failure": failure, "outcome": "Failed"})


def canceled(run: Run, message: str = "") -> Decision:
    """RunCanceled."""
    event = RunCanceled(**_terminal(run), message=message)
    return Decision(event, {**NO_TIMERS, **UNPLACED, "outcome": "Canceled"})


def ended(run: Run, failure: Failure | None = None) -> Decision:
    """The terminal event of a run that is finalizing.

    ``failure`` is about the finalizing: it makes a success a failure and changes nothing else.
    """
    if run.outcome == "Canceled":
        return canceled(run, failure.message if failure else "")
    known = run.failure or failure
    if known is not None:
        return failed(run, known)
    completed = RunCompleted(**_terminal(run), outputs=dict(run.spec.outputs))
    return Decision(completed, {**NO_TIMERS, **UNPLACED})


def finalizing(
    run: Run,
    outcome: Outcome,
    now: float,
    limits: Limits,
    summary: ExitSummary | None = None,
    failure: Failure | None = None,
) -> Decision:
    """RunFinalizing: the outcome is settled here, history closes the files."""
    event = RunFinalizing(run_id=run.run_id, attempt=run.attempt, outcome=outcome, exit=summary)
    changes = {
        **NO_TIMERS,
        **UNPLACED,
        "outcome": outcome,
        "exit": summary,
        "failure": failure,
        "deadline": now + limits.finalizing_s,
        "resend_at": now + limits.resend_s,
    }
    return Decision(event, changes)


def stopped(run: Run, now: float, limits: Limits, summary: ExitSummary | None = None) -> Decision:
    """RunFinalizing of a run that somebody ended: canceled, or failed where they said so."""
    outcome: Outcome = "Failed" if run.failure else "Canceled"
    return finalizing(run, outcome, now, limits, summary, run.failure)


def retrying(
    run: Run, budget: Budget, failure: Failure, now: float, limits: Limits
) -> Decision | None:
    """RunRetrying, or None when the budget is used up."""
    if not left(run, budget, limits):
        return None
    delay = delay_s(run, budget, limits)
    event = RunRetrying(
        run_id=run.run_id,
        attempt=run.attempt + 1,
        reason=failure.code,
        message=failure.message,
        delay_s=delay,
    )
    counter = "user_retries" if budget == "user" else "infra_retries"
    changes = {
        **NO_TIMERS,
        **UNPLACED,
        "not_before": now + delay,
        counter: getattr(run, counter) + 1,
    }
    return Decision(event, changes)


def stop(
    run: Run, reason: StopReason, now: float, limits: Limits, deadline: float | None
) -> Decision:
    """RunStopRequested for the present attempt; said again until its exit is known."""
    event = RunStopRequested(
        run_id=run.run_id,
        attempt=run.attempt,
        node_id=run.node_id or "",
        executor_id=run.executor_id or "",
        reason=reason,
        grace_s=run.spec.grace_s,
    )
    changes = {
        "stopping": reason,
        "deadline": deadline,
        "resend_at": now + limits.stop_resend_s,
        "resends": 0,
    }
    return Decision(event, changes)


def assigned_event(
    run: Run, attempt: int, node_id: str, executor_id: str, lease_s: float
) -> RunAssigned:
    """RunAssigned of a run. Its image is known from the moment it is queued."""
    if run.image is None:
        raise ValueError(f"run {run.run_id} has no image yet")
    return RunAssigned(
        run_id=run.run_id,
        attempt=attempt,
        node_id=node_id,
        executor_id=executor_id,
        pool=run.spec.target,
        lease_s=lease_s,
        experiment=run.submitted.experiment,
        workspace=run.submitted.workspace,
        spec=run.spec,
        image=run.image,
        inputs=dict(run.inputs),
    )


def _terminal(run: Run) -> dict[str, Any]:
    source = run.spec.source
    return {
        "run_id": run.run_id,
        "experiment": run.submitted.experiment,
        "attempt": run.attempt,
        "workspace": run.submitted.workspace,
        "env_id": run.image.env_id if run.image else None,
        "snapshot": source.snapshot if isinstance(source, SnapshotSource) else None,
        "inputs": dict(run.inputs),
        "outputs_manifest": run.exit.outputs_manifest if run.exit else None,
        "exit": _short(run.exit),
    }


def _short(summary: ExitSummary | None) -> ExitSummary | None:
    """The summary without its lists where it is so long that the event might not fit."""
    if summary is None or len(summary.model_dump_json()) <= MAX_EXIT_CHARS:
        return summary
    message = summary.message[:2000] if summary.message else None
    return summary.model_copy(update={"logs": (), "outputs_skipped": (), "message": message})
