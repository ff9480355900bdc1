"""Runs that a client drives: begun at once on no node, over when the client says so. Pure."""

from stellwerk.events import ExitSummary, RunEndReported, RunStarted
from stellwerk_scheduler import endings
from stellwerk_scheduler.model import Decision, Failure, Limits, Outcome, Run

ATTEMPT = 1
"""Nothing of it is ever tried again by the platform."""


def begun(run: Run, now: float) -> Decision:
    """RunStarted: there is nothing to prepare and nothing to wait for."""
    event = RunStarted(run_id=run.run_id, attempt=ATTEMPT)
    return Decision(event, {"deadline": now + run.spec.max_duration_s})


def reported(run: Run, fact: RunEndReported, now: float, limits: Limits) -> Decision:
    """RunFinalizing with what the client said."""
    summary = ExitSummary(reason="exited", outputs_manifest=fact.outputs_manifest, logs=fact.logs)
    failure = None
    if fact.outcome == "Failed":
        failure = Failure(fact.code or "run.failed", fact.message or "the client says so")
    return endings.finalizing(run, fact.outcome, now, limits, summary, failure)


def left(run: Run, outcome: Outcome, now: float, limits: Limits) -> Decision:
    """The script that drove it is over: nobody else can end it, so it ends the same way."""
    failure = None
    if outcome == "Failed":
        failure = Failure("run.parent_failed", "the run whose script drove this one failed")
    return endings.finalizing(run, outcome, now, limits, None, failure)


def overdue(run: Run, now: float, limits: Limits) -> Decision:
    """Its client is gone for good."""
    text = f"nobody ended the run within max_duration_s ({run.spec.max_duration_s:g} s)"
    return endings.finalizing(run, "Failed", now, limits, None, Failure("run.timeout", text))
