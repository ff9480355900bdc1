"""Facts that the scheduler states to itself, beside the events of others."""

from dataclasses import dataclass
from typing import Literal

from stellwerk.events import (
    ArchiveFailed,
    AttemptExited,
    AttemptStarted,
    DatasetFailed,
    DatasetReady,
    ImageFailed,
    ImageReady,
    RunArchived,
    RunCancelRequested,
    RunEndReported,
    RunSubmitted,
)


@dataclass(frozen=True, slots=True)
class LeaseExpired:
    """No renewal of this attempt's lease came in time."""

    attempt: int


@dataclass(frozen=True, slots=True)
class Drained:
    """The executor leaves and the run may be moved elsewhere."""


@dataclass(frozen=True, slots=True)
class DriverEnded:
    """The run whose script drove this one has ended."""

    outcome: Literal["Completed", "Failed", "Canceled"]


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed: look at deadlines, delays and what to say again."""


Fact = (
    RunSubmitted
    | RunCancelRequested
    | RunEndReported
    | ImageReady
    | ImageFailed
    | DatasetReady
    | DatasetFailed
    | AttemptStarted
    | AttemptExited
    | RunArchived
    | ArchiveFailed
    | LeaseExpired
    | Drained
    | DriverEnded
    | Tick
)
