"""Where a run's time went."""

from datetime import UTC, datetime, timedelta

from stellwerk.api import RunEventView, RunView
from stellwerk.events import StartInfo
from stellwerk.timeline import Step, timeline

START = datetime(2026, 1, 1, tzinfo=UTC)


def event(number: int, kind: str, after: float) -> RunEventView:
    return RunEventView(
        sequence=number,
        type=kind,
        time=START + timedelta(seconds=after),
        status="Running",
        attempt=1,
        message="",
    )


def view(start: StartInfo | None) -> RunView:
    return RunView(
        run_id="r" * 32,
        experiment="e",
        status="Running",
        target="local",
        submitted_at=START,
        start=start,
    )


EVENTS = [
    event(1, "RunSubmitted", 0),
    event(2, "RunPreparing", 0.5),
    event(3, "ImageReady", 2.5),
    event(4, "RunQueued", 2.5),
    event(5, "RunAssigned", 3),
    event(6, "RunStarted", 4),
]


def test_steps_of_a_warm_start() -> None:
    known = {"prepare": 0.25, "code": 0.0625, "launch": 0.125, "imports": 0.0, "first_step": 1.5}
    start = StartInfo(warm=True, timings_s=known)
    assert timeline(view(start), EVENTS) == [
        Step("environment", 0.5, 2.0),
        Step("queue", 2.5, 0.5),
        Step("start", 3.0, 1.0),
        Step("  preparation on the node", None, 0.25),
        Step("    code", None, 0.0625),
        Step("  process", None, 0.125, "warm"),
        Step("  imports", None, 0.0, "loaded before the run"),
        Step("  first training step", None, 1.5),
    ]


def test_a_cold_start_says_why_and_a_failed_run_ends_too() -> None:
    start = StartInfo(cold_reason="GPU runs start cold", timings_s={"launch": 0.5})
    ended = [*EVENTS, event(7, "RunFinalizing", 9), event(8, "RunFailed", 9.5)]
    steps = timeline(view(start), ended)
    assert Step("  process", None, 0.5, "cold: GPU runs start cold") in steps
    assert steps[-2:] == [Step("run", 4.0, 5.0), Step("post-processing", 9.0, 0.5)]


def test_the_last_attempt_counts() -> None:
    again = [*EVENTS, event(7, "RunRetrying", 5), event(8, "RunAssigned", 6)]
    assert [step.name for step in timeline(view(None), again)] == ["environment", "queue"]
