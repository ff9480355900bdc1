"""What time alone brings about: things said again, and states that last too long. Pure."""

from stellwerk.events import Event, RunFinalizing
from stellwerk.runstate import RunStatus
from stellwerk_scheduler import endings, interactive
from stellwerk_scheduler.model import Decision, Failure, Limits, Run
from stellwerk_scheduler.retries import STUCK


def repeat(run: Run, event: Event, now: float, limits: Limits) -> Decision:
    """Emit the event that led here again, under its old number: nobody who has it is bothered."""
    pause = min(limits.resend_max_s, limits.resend_s * 2.0 ** (run.resends + 1))
    return Decision(event, {"resend_at": now + pause, "resends": run.resends + 1}, repeat=True)


def resend(run: Run, now: float, limits: Limits) -> list[Decision]:
    """Say again what the others should have acted on: a stop anew, else the last decision."""
    if run.placed and run.stopping is not None:
        again = endings.stop(run, run.stopping, now, limits, run.deadline)
        pause = min(limits.stop_resend_max_s, limits.stop_resend_s * 2.0 ** (run.resends + 1))
        changes = {**again.changes, "resend_at": now + pause, "resends": run.resends + 1}
        return [Decision(again.event, changes)]
    if run.state == RunStatus.STARTING and run.node_id and run.executor_id:
        event: Event = endings.assigned_event(
            run, run.attempt, run.node_id, run.executor_id, limits.lease_s
        )
        return [repeat(run, event, now, limits)]
    if run.state == RunStatus.FINALIZING and run.outcome is not None:
        event = RunFinalizing(
            run_id=run.run_id, attempt=run.attempt, outcome=run.outcome, exit=run.exit
        )
        return [repeat(run, event, now, limits)]
    return [Decision(None, {"resend_at": None})]


def overdue(run: Run, now: float, limits: Limits) -> list[Decision]:
    """The state's deadline has passed: every state ends."""
    if run.state == RunStatus.PREPARING:
        what = " and ".join(sorted(run.needs))
        text = f"not prepared within {limits.prepare_s:g} s: {what} not ready"
        return [endings.failed(run, Failure("timeout.preparing", text))]
    if run.state == RunStatus.FINALIZING:
        text = f"outputs and log could not be verified within {limits.finalizing_s:g} s"
        return [endings.ended(run, Failure("timeout.finalizing", text))]
    if run.spec.interactive and run.state == RunStatus.RUNNING:
        return [interactive.overdue(run, now, limits)]
    if not run.placed:
        return [Decision(None, {"deadline": None})]
    if run.cancel_requested:
        return [endings.stopped(run, now, limits)]
    if run.state == RunStatus.STARTING:
        return _not_started(run, now, limits)
    if run.stopping == "timeout":
        text = "the run took longer than max_duration_s and its node did not report its end"
        failure = Failure("timeout.running", text)
        return [endings.finalizing(run, "Failed", now, limits, None, failure)]
    deadline = now + run.spec.grace_s + limits.cancel_s
    return [endings.stop(run, "timeout", now, limits, deadline)]


def _not_started(run: Run, now: float, limits: Limits) -> list[Decision]:
    give_up = endings.stop(run, "superseded", now, limits, None)
    failure = Failure(STUCK.code, STUCK.text.format(attempt=run.attempt))
    again = endings.retrying(run, STUCK.budget, failure, now, limits)
    if again is None:
        again = endings.finalizing(run, "Failed", now, limits, None, failure)
    return [give_up, again]
