"""Facts of the submission aggregate: what users asked for. Owner: the gateway.

Any client on the bus may publish RunSubmitted itself, that is one of the three ways in.
"""

from typing import Annotated

from pydantic import Field, StringConstraints

from stellwerk.events.base import Event, event
from stellwerk.ids import ID_PATTERN
from stellwerk.runspec import Name, RunSpec

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
    """Somebody asked to cancel a run; the scheduler decides what becomes of it."""

    run_id: Id
    requested_by: str | None = None
    reason: Annotated[str, StringConstraints(max_length=1000)] = Field(default="")
