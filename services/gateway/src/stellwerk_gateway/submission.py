"""Accepting a run: RunSubmitted is on the broker's disk before the caller hears of it.

The run id follows from the Idempotency-Key and the fact is created once on its own subject, so
any number of repeats is one run, for as long as the event stream reaches back.
"""

from datetime import datetime

from stellwerk import ids, subjects
from stellwerk.api import RunRequest, RunView
from stellwerk.errors import (
    ConflictError,
    NotFoundError,
    ProtocolError,
    ServiceUnavailableError,
    UserError,
)
from stellwerk.events import MAX_EVENT_BYTES, Envelope, RunCancelRequested, RunSubmitted
from stellwerk.runstate import TERMINAL, RunStatus
from stellwerk_gateway.names import checked_name
from stellwerk_gateway.platform import ANSWER_S, BEST_EFFORT_S, Platform
from stellwerk_gateway.possible import check_possible
from stellwerk_gateway.problems import HttpError

RUN_NOT_FOUND = "run.not_found"


def submission(request: RunRequest, *, workspace: str, key: str, submitted_by: str) -> RunSubmitted:
    """The fact a request becomes. Raises UserError for a field the fact may not have."""
    if request.parent_run_id is not None and not ids.is_id(request.parent_run_id):
        raise UserError(
            f"parent_run_id: got {request.parent_run_id[:100]!r}, which is no run id.",
            code="field.pattern",
            field="parent_run_id",
        )
    spec = request.spec
    check_possible(spec)
    if spec.display_name is not None:
        name = checked_name(spec.display_name, "spec.display_name")
        spec = spec.model_copy(update={"display_name": name})
    for tag in (*spec.tags, *spec.properties):
        checked_name(tag, "spec.tags" if tag in spec.tags else "spec.properties")
    return RunSubmitted(
        run_id=ids.run_id(workspace, key),
        experiment=request.experiment,
        spec=spec,
        workspace=workspace,
        submitted_by=submitted_by,
        parent_run_id=request.parent_run_id,
    )


async def accept(platform: Platform, fact: RunSubmitted) -> RunView:
    """Publish the fact once and show the run as it is known now.

    Raises ConflictError ``idempotency.conflict`` when the key stands for another run already,
    ServiceUnavailableError ``bus.down`` when the broker does not acknowledge.
    """
    size = len(fact.data())
    if size > MAX_EVENT_BYTES:
        raise HttpError(
            413,
            "run.too_large",
            f"The run is {size} bytes; the limit is {MAX_EVENT_BYTES}. Put files into a snapshot "
            "and large values into a dataset.",
        )
    envelope = _wrap(platform, fact)
    try:
        done = await platform.bus.publish(envelope, expect_first=True)
    except ConflictError as error:
        raise ConflictError(
            "This Idempotency-Key was used before with another run. Send a new one.",
            code=error.code,
            field="Idempotency-Key",
        ) from error
    if done.duplicate:
        return await find_run(platform, fact.run_id, timeout_s=BEST_EFFORT_S, stale=True)
    return _first_view(fact, envelope.time)


async def find_run(
    platform: Platform, run_id: str, *, timeout_s: float = ANSWER_S, stale: bool = False
) -> RunView:
    """The run as history has it, or as it was submitted where history does not have it yet.

    Raises NotFoundError ``run.not_found``, which says why where a client has published a submission
    that the scheduler has put aside; ServiceUnavailableError when history is away, unless ``stale``
    says that knowing the submission is enough.
    """
    if not ids.is_id(run_id):
        raise NotFoundError(
            f"There is no run {run_id[:100]!r}.", code=RUN_NOT_FOUND, field="run_id"
        )
    away: ServiceUnavailableError | None = None
    try:
        return await platform.ask("history", "run-get", RunView, timeout_s=timeout_s, run_id=run_id)
    except NotFoundError:
        pass
    except ServiceUnavailableError as error:
        away = error
        if not stale:
            raise
    try:
        submitted = await platform.bus.last_event(subjects.event("submission", run_id, "submitted"))
    except ProtocolError as error:
        raise NotFoundError(
            f"There is no run {run_id}: its submission on the bus was refused, {error.message}. "
            "Publish it again, corrected.",
            code=RUN_NOT_FOUND,
            field="run_id",
        ) from error
    if submitted is not None and isinstance(submitted.event, RunSubmitted):
        return _first_view(submitted.event, submitted.time)
    raise away or NotFoundError(f"There is no run {run_id}.", code=RUN_NOT_FOUND, field="run_id")


async def cancel(platform: Platform, fact: RunCancelRequested) -> RunView:
    """Ask the scheduler to cancel. Raises NotFoundError, HttpError 409 for a run that is over."""
    run = await find_run(platform, fact.run_id, timeout_s=BEST_EFFORT_S, stale=True)
    if run.status in TERMINAL:
        raise HttpError(
            409,
            "run.already_terminal",
            f"The run is {run.status} already; only a run that is not over can be canceled.",
        )
    await platform.bus.publish(_wrap(platform, fact))
    return run.model_copy(update={"status": str(RunStatus.CANCEL_REQUESTED)})


def _wrap(platform: Platform, fact: RunSubmitted | RunCancelRequested) -> Envelope:
    source = f"/stellwerk/gateway/{platform.settings.instance}"
    return Envelope.wrap(fact, source=source, time=platform.clock.now())


def _first_view(fact: RunSubmitted, time: datetime) -> RunView:
    return RunView(
        run_id=fact.run_id,
        experiment=fact.experiment,
        status=str(RunStatus.NOT_STARTED),
        kind=fact.spec.kind,
        display_name=fact.spec.display_name,
        submitted_by=fact.submitted_by,
        parent_run_id=fact.parent_run_id,
        target=fact.spec.target,
        submitted_at=time,
        tags=dict(fact.spec.tags),
        properties=dict(fact.spec.properties),
        spec=fact.spec,
    )
