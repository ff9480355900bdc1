"""The run's state machine: one table, and the pure function that folds events into a state.

Names are the status set of the Azure ML SDK v1, so no mapping is needed for code written
against it. ``CancelRequested`` and ``NotResponding`` lie over a live state. The scheduler decides
which event comes next; this module says which may come and what state results. History uses it
to rebuild runs, tests to compare both.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from stellwerk.errors import ProtocolError
from stellwerk.events import Event
from stellwerk.events import run as run_events
from stellwerk.events.submission import RunCancelRequested, RunSubmitted


class RunStatus(StrEnum):
    """What a user sees."""

    NOT_STARTED = "NotStarted"
    PREPARING = "Preparing"
    QUEUED = "Queued"
    PROVISIONING = "Provisioning"
    STARTING = "Starting"
    RUNNING = "Running"
    FINALIZING = "Finalizing"
    COMPLETED = "Completed"
    FAILED = "Failed"
    CANCELED = "Canceled"
    CANCEL_REQUESTED = "CancelRequested"
    NOT_RESPONDING = "NotResponding"


S = RunStatus
TERMINAL = frozenset({S.COMPLETED, S.FAILED, S.CANCELED})
PLACED = frozenset({S.STARTING, S.RUNNING})
BEFORE_ATTEMPT = frozenset({S.NOT_STARTED, S.PREPARING, S.QUEUED, S.PROVISIONING})
LIVE = frozenset(BEFORE_ATTEMPT | PLACED | {S.FINALIZING})

TRANSITIONS: dict[type[Event], tuple[frozenset[RunStatus], RunStatus | None]] = {
    # From Queued: a node found the environment gone, so the next attempt needs it made again.
    run_events.RunPreparing: (frozenset({S.NOT_STARTED, S.QUEUED}), S.PREPARING),
    run_events.RunQueued: (frozenset({S.PREPARING, S.PROVISIONING}), S.QUEUED),
    run_events.RunProvisioning: (frozenset({S.QUEUED}), S.PROVISIONING),
    run_events.RunAssigned: (frozenset({S.QUEUED, S.PROVISIONING}), S.STARTING),
    # From NotStarted: an interactive run, which needs nothing prepared and no node.
    run_events.RunStarted: (frozenset({S.STARTING, S.NOT_STARTED}), S.RUNNING),
    # In any live state: an attempt that was given up may come back while the run waits again.
    run_events.RunStopRequested: (LIVE, None),
    run_events.AttemptLost: (frozenset(PLACED), None),
    run_events.RunRetrying: (frozenset(PLACED), S.QUEUED),
    run_events.RunFinalizing: (frozenset(PLACED), S.FINALIZING),
    run_events.RunCompleted: (frozenset({S.FINALIZING}), S.COMPLETED),
    run_events.RunFailed: (LIVE, S.FAILED),
    run_events.RunCanceled: (LIVE, S.CANCELED),
}
"""Event → (states it may come in, state after it; None leaves the state as it is)."""


class IllegalTransitionError(ProtocolError):
    """The event may not come in this state."""

    code = "run.illegal_transition"


@dataclass(frozen=True, slots=True)
class RunState:
    """A run as far as its events tell. ``state`` is the live state below the overlays."""

    run_id: str
    state: RunStatus = S.NOT_STARTED
    attempt: int = 0
    cancel_requested: bool = False
    not_responding: bool = False

    @property
    def status(self) -> RunStatus:
        """The state with its overlay, as users see it."""
        if self.state in TERMINAL:
            return self.state
        if self.cancel_requested:
            return S.CANCEL_REQUESTED
        if self.not_responding:
            return S.NOT_RESPONDING
        return self.state


def submitted(event: RunSubmitted) -> RunState:
    """State of a run that was just accepted."""
    return RunState(run_id=event.run_id)


def evolve(state: RunState, event: Event) -> RunState:
    """State after ``event``. Raises IllegalTransitionError where it may not come."""
    if isinstance(event, RunCancelRequested):
        return state if state.state in TERMINAL else replace(state, cancel_requested=True)
    allowed, after = TRANSITIONS.get(type(event), (frozenset(), None))
    if state.state not in allowed:
        raise IllegalTransitionError(
            f"{type(event).__name__} in state {state.state} of {state.run_id}"
        )
    if isinstance(event, run_events.RunAssigned):
        return replace(state, state=S.STARTING, attempt=event.attempt, not_responding=False)
    if isinstance(event, run_events.RunStarted):
        return replace(state, state=S.RUNNING, attempt=event.attempt, not_responding=False)
    if isinstance(event, run_events.AttemptLost):
        return replace(state, not_responding=True)
    if after is None:
        return state
    return replace(state, state=after, not_responding=False)


def replay(events: Iterable[Event]) -> RunState:
    """State of a run from all its events, the submission first."""
    first, *rest = events
    if not isinstance(first, RunSubmitted):
        raise IllegalTransitionError(f"a run begins with RunSubmitted, not {type(first).__name__}")
    state = submitted(first)
    for event in rest:
        state = evolve(state, event)
    return state
