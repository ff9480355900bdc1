"""The state machine's table, and replaying events."""

import pytest

from stellwerk.events import Event, RunCancelRequested, RunQueued, RunSubmitted
from stellwerk.events import run as run_events
from stellwerk.runstate import (
    LIVE,
    TERMINAL,
    TRANSITIONS,
    IllegalTransitionError,
    RunState,
    RunStatus,
    evolve,
    replay,
)


def make(cls: type[Event], **values: object) -> Event:
    known = {"run_id": "r", "attempt": 1, "node_id": "n", "pool": "p", "executor_id": "x"}
    return cls.model_construct(**{**known, **values})


@pytest.mark.parametrize("state", list(RunStatus)[:10])
@pytest.mark.parametrize("cls", list(TRANSITIONS))
def test_each_event_comes_only_where_the_table_says(state: RunStatus, cls: type[Event]) -> None:
    allowed, after = TRANSITIONS[cls]
    before = RunState("r", state=state, attempt=1)
    if state not in allowed:
        with pytest.raises(IllegalTransitionError):
            evolve(before, make(cls))
        return
    assert evolve(before, make(cls)).state == (after or state)


@pytest.mark.parametrize("state", sorted(TERMINAL))
def test_terminal_states_never_change(state: RunStatus) -> None:
    before = RunState("r", state=state)
    assert evolve(before, make(RunCancelRequested)) == before
    for cls in TRANSITIONS:
        with pytest.raises(IllegalTransitionError):
            evolve(before, make(cls))


@pytest.mark.parametrize("state", sorted(LIVE))
def test_cancel_lies_over_a_live_state(state: RunStatus) -> None:
    after = evolve(RunState("r", state=state), make(RunCancelRequested))
    assert (after.state, after.status) == (state, RunStatus.CANCEL_REQUESTED)


def test_lost_attempt_is_shown_until_the_next() -> None:
    lost = evolve(RunState("r", state=RunStatus.RUNNING, attempt=1), make(run_events.AttemptLost))
    assert lost.status == RunStatus.NOT_RESPONDING
    assert evolve(lost, make(run_events.RunRetrying, attempt=2)).status == RunStatus.QUEUED


def test_an_attempt_given_up_for_good_is_not_shown_as_silent() -> None:
    lost = evolve(RunState("r", state=RunStatus.RUNNING, attempt=1), make(run_events.AttemptLost))
    assert evolve(lost, make(run_events.RunFinalizing)).status == RunStatus.FINALIZING


def test_a_run_whose_environment_is_gone_is_prepared_again() -> None:
    state = RunState("r", state=RunStatus.RUNNING, attempt=1)
    for cls in (run_events.RunRetrying, run_events.RunPreparing, RunQueued):
        state = evolve(state, make(cls, attempt=2))
    assert (state.status, state.attempt) == (RunStatus.QUEUED, 1)


def test_replay_of_a_whole_run() -> None:
    submitted = RunSubmitted.model_validate(
        {
            "run_id": "r",
            "experiment": "e",
            "spec": {"source": {"inline": {"a.py": ""}}, "script": "a.py"},
        }
    )
    classes = (
        run_events.RunPreparing, RunQueued, run_events.RunProvisioning, RunQueued, run_events.RunAssigned,
        run_events.RunStarted, run_events.RunFinalizing, run_events.RunCompleted,
    )  # fmt: skip
    assert replay([submitted, *map(make, classes)]).status == RunStatus.COMPLETED
    with pytest.raises(IllegalTransitionError, match="begins with RunSubmitted"):
        replay([make(RunQueued)])
