"""What the scheduler knows of a run, and how a decision changes it. Pure.

All times are service seconds (``uptime.py``): they stand still while the scheduler is stopped or
cut off from the broker, so no deadline passes and no lease expires in that time.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from stellwerk.events import Event, ExitSummary, ImageInfo, ResolvedInput, RunSubmitted
from stellwerk.events.run import StopReason
from stellwerk.runspec import RunSpec
from stellwerk.runstate import PLACED, TERMINAL, RunState, RunStatus, evolve

Need = Literal["image", "dataset"]
Outcome = Literal["Completed", "Failed", "Canceled"]
WAITING = frozenset({RunStatus.QUEUED, RunStatus.PROVISIONING})


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something failed: a stable code and a sentence for people."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Every timer and budget of a run. Seconds, except the counts.

    ``kept_s``: how long a run's row outlasts its end; the event stream reaches back 30 days.
    """

    lease_s: float = 120.0
    prepare_s: float = 7200.0
    starting_s: float = 300.0
    starting_bytes_per_s: float = 5_000_000.0
    running_margin_s: float = 60.0
    finalizing_s: float = 3600.0
    cancel_s: float = 60.0
    resend_s: float = 30.0
    resend_max_s: float = 600.0
    stop_resend_s: float = 2.0
    stop_resend_max_s: float = 60.0
    kept_s: float = 45 * 24 * 3600.0
    infra_retries: int = 3
    retry_delays_s: tuple[float, ...] = (2.0, 10.0, 30.0)


@dataclass(frozen=True, slots=True)
class Run:
    """A row of the table ``runs``.

    ``sequence`` numbers the run's events without a gap, the submission is 0; ``decided`` is the
    number of the event that led into the present state. ``node_id`` and ``executor_id`` are set
    while an attempt is placed. ``not_before`` holds a queued run back. ``resend_at`` and
    ``deadline`` are None where the state has none; that of an ended run is when its row goes.
    """

    submitted: RunSubmitted
    state: RunStatus = RunStatus.NOT_STARTED
    attempt: int = 0
    cancel_requested: bool = False
    not_responding: bool = False
    sequence: int = 0
    decided: int = 0
    needs: frozenset[Need] = frozenset()
    image: ImageInfo | None = None
    inputs: Mapping[str, ResolvedInput] = field(default_factory=dict)
    node_id: str | None = None
    executor_id: str | None = None
    outcome: Outcome | None = None
    exit: ExitSummary | None = None
    failure: Failure | None = None
    stopping: StopReason | None = None
    user_retries: int = 0
    infra_retries: int = 0
    not_before: float | None = None
    deadline: float | None = None
    resend_at: float | None = None
    resends: int = 0

    @property
    def run_id(self) -> str:
        """The run's id."""
        return self.submitted.run_id

    @property
    def spec(self) -> RunSpec:
        """What was asked for."""
        return self.submitted.spec

    @property
    def machine(self) -> RunState:
        """The part that the run's events alone determine."""
        return RunState(
            self.run_id, self.state, self.attempt, self.cancel_requested, self.not_responding
        )

    @property
    def terminal(self) -> bool:
        """Whether nothing can change any more."""
        return self.state in TERMINAL

    @property
    def placed(self) -> bool:
        """Whether an attempt holds a slot. A run that a client drives never does."""
        return self.state in PLACED and not self.spec.interactive

    @property
    def placeable(self) -> bool:
        """Whether the next free slot may be given to it."""
        return self.state in WAITING and self.not_before is None

    @property
    def wake_at(self) -> float | None:
        """When the reconcile loop must look at it next."""
        times = [t for t in (self.not_before, self.deadline, self.resend_at) if t is not None]
        return min(times, default=None)


@dataclass(frozen=True, slots=True)
class Decision:
    """An event to emit, if any, and the row's changes that go with it.

    ``repeat``: the event was emitted before and is emitted again under its old number.
    """

    event: Event | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    repeat: bool = False


def apply(run: Run, decision: Decision) -> Run:
    """The row after a decision; the state machine itself decides about state and attempt."""
    if decision.event is None or decision.repeat:
        return replace(run, **decision.changes)
    after = evolve(run.machine, decision.event)
    number = run.sequence + 1
    return replace(
        run,
        state=after.state,
        attempt=after.attempt,
        not_responding=after.not_responding,
        sequence=number,
        decided=number if after.state != run.state else run.decided,
        **decision.changes,
    )
