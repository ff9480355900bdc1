"""Facts of the submission aggregate: what users asked for. Owner: the gateway.

Any client on the bus may publish RunSubmitted itself, that is one of the three ways in.
"""

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from stellwerk.events.attempt import LogClosure
from stellwerk.events.base import Event, event
from stellwerk.ids import ID_PATTERN
from stellwerk.runspec import Digest, Name, RunSpec

Id = Annotated[str, StringConstraints(pattern=ID_PATTERN)]


@event(aggregate="submission", verb="submitted", owner="gateway", key="run_id")
class RunSubmitted(Event):
    """A run was asked for. The id is the caller's choice and makes the submission idempotent."""

    run_id: Id
    experiment: Name
    spec: RunSpec
    workspace: Id = "default"
    submitted_by: Annotated[str, StringConstraints(max_length=255)] | None = None
    parent_run_id: Id | None = None


@event(aggregate="submission", verb="cancel-requested", owner="gateway", key="run_id")
class RunCancelRequested(Event):
    """Somebody asked to end a run; the scheduler decides what becomes of it.

    ``outcome`` Failed: it shall count as failed, with ``code``, for the ``reason``.
    """

    run_id: Id
    requested_by: str | None = None
    reason: Annotated[str, StringConstraints(max_length=1000)] = Field(default="")
    outcome: Literal["Canceled", "Failed"] = "Canceled"
    code: Annotated[str, StringConstraints(max_length=100)] = ""


@event(aggregate="submission", verb="end-reported", owner="gateway", key="run_id")
class RunEndReported(Event):
    """The client that drives an interactive run says that it is over, once.

    Published when history has all records; ``outputs_manifest`` lists the files they name.
    """

    run_id: Id
    outcome: Literal["Completed", "Failed", "Canceled"]
    code: Annotated[str, StringConstraints(max_length=100)] = ""
    message: Annotated[str, StringConstraints(max_length=4000)] = ""
    outputs_manifest: Digest | None = None
    logs: tuple[LogClosure, ...] = ()
    reported_by: Annotated[str, StringConstraints(max_length=255)] | None = None
