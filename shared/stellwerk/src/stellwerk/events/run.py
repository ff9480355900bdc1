"""Facts of the run aggregate. Owner: the scheduler, which alone moves a run.

Each carries the aggregate's gap-free sequence in its envelope. ``stellwerk.runstate`` rebuilds a
run's state from them.
"""

from typing import Literal

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.events.attempt import ExitSummary, StartInfo
from stellwerk.events.base import Event, event
from stellwerk.events.dataset import ResolvedInput
from stellwerk.events.image import ImageInfo
from stellwerk.runspec import (
    DatasetInput,
    DatasetOutput,
    EnvironmentPin,
    EnvironmentReference,
    RunSpec,
)

StopReason = Literal["canceled", "superseded", "timeout"]


class _RunEvent(Event):
    run_id: str


@event(aggregate="run", verb="preparing", owner="scheduler", key="run_id")
class RunPreparing(_RunEvent):
    """Environment and inputs are wanted; environment-build and dataset answer with facts.

    ``environment_pin``: exactly that environment, as an earlier run had it.
    """

    experiment: str
    environment: EnvironmentReference | EnvironmentDefinition
    environment_pin: EnvironmentPin | None = None
    inputs: dict[str, DatasetInput]


@event(aggregate="run", verb="queued", owner="scheduler", key="run_id")
class RunQueued(_RunEvent):
    """Everything is ready; the run waits for a slot. ``position`` counts from 1."""

    pool: str
    reason: str
    message: str
    position: int


@event(aggregate="run", verb="provisioning", owner="scheduler", key="run_id")
class RunProvisioning(_RunEvent):
    """The pool is growing for this run."""

    pool: str
    message: str


@event(aggregate="run", verb="assigned", owner="scheduler", key="run_id", addressee="executor_id")
class RunAssigned(_RunEvent):
    """An attempt is given to a node: all its executor needs. ``lease_s`` counts from receipt."""

    attempt: int
    node_id: str
    executor_id: str
    pool: str
    lease_s: float
    experiment: str
    workspace: str
    spec: RunSpec
    image: ImageInfo
    inputs: dict[str, ResolvedInput]


@event(aggregate="run", verb="started", owner="scheduler", key="run_id")
class RunStarted(_RunEvent):
    """The attempt's process runs; an interactive run has begun, on no node."""

    attempt: int
    node_id: str | None = None
    start: StartInfo | None = None


@event(
    aggregate="run", verb="stop-requested", owner="scheduler", key="run_id", addressee="executor_id"
)
class RunStopRequested(_RunEvent):
    """The executor is told to stop an attempt; said again until its exit is seen."""

    attempt: int
    node_id: str
    executor_id: str
    reason: StopReason
    grace_s: float


@event(aggregate="run", verb="finalizing", owner="scheduler", key="run_id")
class RunFinalizing(_RunEvent):
    """The attempt is over; history verifies its outputs and closes its log."""

    attempt: int
    outcome: Literal["Completed", "Failed", "Canceled"]
    exit: ExitSummary | None


@event(aggregate="run", verb="retrying", owner="scheduler", key="run_id")
class RunRetrying(_RunEvent):
    """A new attempt will be made after ``delay_s`` seconds."""

    attempt: int
    reason: str
    message: str
    delay_s: float


@event(aggregate="run", verb="attempt-lost", owner="scheduler", key="run_id")
class AttemptLost(_RunEvent):
    """The attempt's lease expired without a sign of its executor."""

    attempt: int
    node_id: str


class _Terminal(_RunEvent):
    experiment: str
    attempt: int
    workspace: str = "default"
    env_id: str | None = None
    snapshot: str | None = None
    inputs: dict[str, ResolvedInput] = {}
    outputs_manifest: str | None = None
    exit: ExitSummary | None = None


@event(aggregate="run", verb="completed", owner="scheduler", key="run_id")
class RunCompleted(_Terminal):
    """The run succeeded; its outputs are verified and its log is closed.

    ``outputs``: what shall become of each folder in ``exit.outputs``.
    """

    outputs: dict[str, DatasetOutput] = {}


@event(aggregate="run", verb="failed", owner="scheduler", key="run_id")
class RunFailed(_Terminal):
    """The run failed; ``code`` is stable, ``message`` is for people."""

    code: str
    message: str


@event(aggregate="run", verb="canceled", owner="scheduler", key="run_id")
class RunCanceled(_Terminal):
    """The run was canceled."""

    message: str = ""
