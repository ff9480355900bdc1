"""What clients put into runs, and many of a run's values at once."""

from typing import Annotated

from fastapi import APIRouter, Body, Query
from starlette.responses import Response

from stellwerk.answers import SeriesPage
from stellwerk.api import RunView
from stellwerk.errors import NotFoundError
from stellwerk.run_records import (
    LogChunk,
    LogChunkView,
    RecordsRequest,
    RecordsView,
    RunEndRequest,
)
from stellwerk_gateway import examples
from stellwerk_gateway.client_logs import add_chunk
from stellwerk_gateway.fields import RunId
from stellwerk_gateway.interactive import end
from stellwerk_gateway.platform import ANSWER_S, Here, Who
from stellwerk_gateway.problems import documented
from stellwerk_gateway.records import add_records
from stellwerk_gateway.submission import find_run

router = APIRouter(tags=["runs"])

SERIES_S = 30.0


@router.post(
    "/runs/{run_id}/records",
    summary="Log values and files",
    responses=documented(400, 404, 408, 409, 413, 415),
)
async def post_records(
    run_id: RunId, body: Annotated[RecordsRequest, Body(openapi_examples=examples.RECORDS)],
    platform: Here,
) -> RecordsView:  # fmt: skip
    """What a client logs into a run: stored for good when this answers. Repeats are harmless."""
    run = await find_run(platform, run_id)
    return await add_records(platform, run, body)


@router.post(
    "/runs/{run_id}/logs",
    summary="Send a piece of a log",
    responses=documented(400, 404, 408, 409, 413, 415),
)
async def post_log(run_id: RunId, body: LogChunk, platform: Here) -> LogChunkView:
    """The next bytes of a file under `logs/` of an interactive run. Repeats are harmless."""
    return await add_chunk(platform, await find_run(platform, run_id), body)


@router.post(
    "/runs/{run_id}/end",
    summary="End an interactive run",
    responses=documented(400, 404, 409),
)
async def end_run(run_id: RunId, body: RunEndRequest, platform: Here, who: Who) -> RunView:
    """Everything logged before is part of the run. Answers when it has ended, mostly at once."""
    return await end(platform, await find_run(platform, run_id), body, who)


@router.get(
    "/runs/{run_id}/series",
    summary="Read all logged values",
    response_model=SeriesPage,
    responses=documented(404),
)
async def get_series(
    run_id: RunId,
    platform: Here,
    name: Annotated[str | None, Query(max_length=255, description="Only this metric.")] = None,
    recursive: Annotated[bool, Query(description="Those of all runs below it too.")] = False,
    cursor: Annotated[str | None, Query(max_length=40, description="next of the page before.")]
    = None,
) -> Response:  # fmt: skip
    """Values only, by run and metric: 100,000 of them in a few pages."""
    wanted = {"run_id": run_id, "name": name, "recursive": recursive, "cursor": cursor}
    try:
        reply = await platform.bus.call_raw("history", "metric-series", wanted, ANSWER_S + SERIES_S)
    except NotFoundError:
        await find_run(platform, run_id)
        return Response(SeriesPage().model_dump_json(), media_type="application/json")
    return Response(reply.body, media_type="application/json")
