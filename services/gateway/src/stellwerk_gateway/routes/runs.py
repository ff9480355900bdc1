"""Runs: submit, look at, change, cancel, and follow their events."""

from typing import Annotated

from fastapi import APIRouter, Body, Header, Query, Response
from pydantic import Field
from starlette.responses import StreamingResponse

from stellwerk import ids
from stellwerk.answers import ExperimentView
from stellwerk.api import Page, RunPatch, RunRequest, RunView
from stellwerk.errors import NotFoundError, ServiceUnavailableError
from stellwerk.events import RunCancelRequested
from stellwerk.runstate import RunStatus
from stellwerk_gateway import examples
from stellwerk_gateway.fields import Key, OneLabel, PageQuery, RunId, one_label
from stellwerk_gateway.interactive import until_begun
from stellwerk_gateway.names import checked_name
from stellwerk_gateway.platform import BEST_EFFORT_S, Here, Platform, Who
from stellwerk_gateway.precheck import precheck
from stellwerk_gateway.problems import documented
from stellwerk_gateway.replies import QueueReply
from stellwerk_gateway.run_scope import Within
from stellwerk_gateway.streams import LiveResponse, RunEvents, sse
from stellwerk_gateway.submission import accept, cancel, find_run, submission

router = APIRouter(tags=["runs"])

RUNS_AT_ONCE = 200
WAITING = frozenset({RunStatus.QUEUED, RunStatus.PROVISIONING})


class RunQuery(PageQuery):
    """What to list."""

    experiment: str | None = Field(None, max_length=255, description="Only this experiment.")
    status: RunStatus | None = Field(None, description="Only runs in this status.")
    tag: OneLabel = Field((), description="A tag they have: name, or name=value.")
    property: OneLabel = Field((), description="A property they have: name, or name=value.")
    target: str | None = Field(None, max_length=32, description="Only runs on this cluster.")
    parent_run_id: str | None = Field(None, max_length=40, description="Only its children.")
    ancestor_run_id: str | None = Field(
        None, max_length=40, description="Only runs below it, at any depth."
    )
    search: str | None = Field(
        None, min_length=1, max_length=200, description="Part of a name, or beginning of an id."
    )
    order: str = Field(
        "newest",
        max_length=300,
        description="newest, oldest, name, duration, status or metric:<name>; the last four also "
        "with ' asc' or ' desc' behind them.",
    )


@router.post(
    "/runs",
    status_code=202,
    summary="Submit a run",
    responses=documented(400, 404, 408, 409, 413, 415),
)
async def submit_run(
    body: Annotated[RunRequest, Body(openapi_examples=examples.RUN)],
    platform: Here,
    who: Who,
    scope: Within,
    response: Response,
    idempotency_key: Key = None,
) -> RunView:
    """Answers 202 once the run is stored for good; it is prepared and started from then on.

    Repeat a request whose answer was lost with the same `Idempotency-Key`.
    """
    key = idempotency_key or ids.new_id()
    body = await scope.parent(body)
    fact = submission(body, workspace=platform.settings.workspace, key=key, submitted_by=who)
    await precheck(platform, body)
    view = await accept(platform, fact)
    if fact.spec.interactive:
        view = await until_begun(platform, view)
    response.headers["Location"] = f"/api/v1/runs/{view.run_id}"
    return view


@router.get("/runs", summary="List runs")
async def list_runs(query: Annotated[RunQuery, Query()], platform: Here) -> Page[RunView]:
    """Runs without their specs, newest first unless `order` says otherwise; at most 200 a page."""
    fields = query.model_dump(mode="json") | {
        "limit": min(query.limit, RUNS_AT_ONCE),
        "tag": one_label(query.tag),
        "property": one_label(query.property),
    }
    return await platform.ask("history", "run-list", Page[RunView], **fields)


@router.get("/runs/{run_id}", summary="Show a run", responses=documented(404))
async def get_run(run_id: RunId, platform: Here) -> RunView:
    """The run with its phases; for one that waits also its place in the queue and why."""
    run = await find_run(platform, run_id)
    return await _with_queue(platform, run) if run.status in WAITING else run


@router.patch("/runs/{run_id}", summary="Change tags", responses=documented(400, 404, 409, 413))
async def patch_run(
    run_id: RunId, body: Annotated[RunPatch, Body(openapi_examples=examples.RUN_PATCH)],
    platform: Here,
) -> RunView:  # fmt: skip
    """Merges tags, adds properties (they never change), sets the display name."""
    if body.display_name is not None:
        name = checked_name(body.display_name, "display_name")
        body = body.model_copy(update={"display_name": name})
    for tag in (*body.tags, *body.properties):
        checked_name(tag, "tags" if tag in body.tags else "properties")
    patch = body.model_dump(exclude_unset=True)
    return await platform.ask("history", "run-patch", RunView, run_id=run_id, patch=patch)


@router.post(
    "/runs/{run_id}/cancel",
    status_code=202,
    summary="Cancel a run",
    responses=documented(404, 409),
)
async def cancel_run(
    run_id: RunId,
    platform: Here,
    who: Who,
    reason: Annotated[str, Query(max_length=1000, description="Shown with the run.")] = "",
) -> RunView:
    """Asks for cancellation; the run's status tells what becomes of it. Repeats are harmless."""
    fact = RunCancelRequested(run_id=run_id, requested_by=who, reason=reason)
    return await cancel(platform, fact)


@router.get(
    "/runs/{run_id}/events",
    summary="Follow a run's status",
    response_class=StreamingResponse,
    responses={
        **documented(404),
        200: {"description": examples.SSE, "content": {"text/event-stream": {}}},
    },
)
async def follow_events(
    run_id: RunId,
    platform: Here,
    after: Annotated[int, Query(ge=0, description="Only events after this sequence.")] = 0,
    last_event_id: Annotated[
        int | None, Header(ge=0, description="Same, as EventSource sends it.")
    ] = None,
) -> StreamingResponse:
    """Server-Sent Events until the run is over; resume with the id of the last one seen."""
    events = RunEvents(platform, run_id, max(after, last_event_id or 0))
    try:
        first = await events.read(0)
    except NotFoundError:
        await find_run(platform, run_id, stale=True)
        events.accepted, first = True, ()
    return LiveResponse(platform, sse(platform, events, first), "text/event-stream")


@router.get("/experiments", summary="List experiments")
async def list_experiments(
    query: Annotated[PageQuery, Query()], platform: Here
) -> Page[ExperimentView]:
    """The names that runs were submitted under."""
    limit = min(query.limit, RUNS_AT_ONCE)
    return await platform.ask(
        "history", "experiment-list", Page[ExperimentView], limit=limit, cursor=query.cursor
    )


async def _with_queue(platform: Platform, run: RunView) -> RunView:
    try:
        reply = await platform.ask(
            "scheduler", "queue-get", QueueReply, timeout_s=BEST_EFFORT_S, run_id=run.run_id
        )
    except (NotFoundError, ServiceUnavailableError):
        return run
    return run.model_copy(update={"queue": reply.queue or run.queue})
