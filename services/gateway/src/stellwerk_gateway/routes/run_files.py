"""What runs leave: logs while they grow, files, metrics."""

from typing import Annotated, Any

from fastapi import APIRouter, Query
from starlette.responses import JSONResponse, Response, StreamingResponse

from stellwerk.answers import FileList, LogList, MetricList
from stellwerk.errors import NotFoundError
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.downloads import no_file, run_files, to_blob
from stellwerk_gateway.fields import FilePath, Follow, LogAttempt, Offset, RunId, relative_path
from stellwerk_gateway.logs import RunLog, follow_log, present
from stellwerk_gateway.platform import Here, Platform
from stellwerk_gateway.problems import documented
from stellwerk_gateway.sboms import SBOM_TYPE, sbom
from stellwerk_gateway.streams import LiveResponse
from stellwerk_gateway.submission import find_run

router = APIRouter(tags=["runs"])

LOG_TYPE = "text/plain; charset=utf-8"
BYTES: dict[int | str, dict[str, Any]] = {
    200: {"description": "Raw bytes.", "content": {"text/plain": {}}}
}


@router.get("/runs/{run_id}/logs", summary="List a run's logs", responses=documented(404))
async def list_logs(run_id: RunId, platform: Here) -> LogList:
    """Logs with their present lengths."""
    try:
        return await platform.ask("history", "run-logs", LogList, run_id=run_id)
    except NotFoundError:
        await find_run(platform, run_id)
        return LogList()


@router.get(
    "/runs/{run_id}/logs/{path:path}",
    summary="Read or follow a log",
    response_class=StreamingResponse,
    responses={**documented(404), **BYTES},
)
async def read_log(
    run_id: RunId,
    path: FilePath,
    platform: Here,
    offset: Offset = 0,
    follow: Follow = False,
    attempt: LogAttempt = None,
) -> StreamingResponse:
    """Raw bytes from `offset`. With `follow` the answer stays open until the run is over.

    Following waits for a log that does not exist yet. It ends with the attempt: when the run is
    tried again, the log begins anew at 0 and the old one is `user_logs/attempt_<n>/std_log.txt`.
    """
    return await _log(platform, run_id, relative_path(path), offset, follow=follow, attempt=attempt)


@router.get("/runs/{run_id}/files", summary="List a run's files", responses=documented(404))
async def list_files(run_id: RunId, platform: Here) -> FileList:
    """Outputs and logs; `sha256` is missing for a log that still grows."""
    return FileList(files=tuple([file async for file in run_files(platform, run_id)]))


@router.get(
    "/runs/{run_id}/files/{path:path}",
    summary="Download a file of a run",
    response_class=Response,
    responses={
        **documented(404),
        **BYTES,
        307: {"description": "To the file in the object store, valid for 15 minutes."},
    },
)
async def get_file(
    run_id: RunId,
    path: FilePath,
    platform: Here,
    redirect: Annotated[
        bool, Query(description="false: answer with the address as JSON (`url`).")
    ] = True,
) -> Response:
    """A redirect to the stored file, or the bytes so far of a log that still grows."""
    name = relative_path(path)
    async for file in run_files(platform, run_id, after=name[:-1]):
        if file.path >= name:
            break
    else:
        raise no_file(name)
    if file.path != name:
        raise no_file(name)
    if file.sha256 is not None:
        found = to_blob(platform, file.sha256, name)
        return found if redirect else JSONResponse({"url": found.headers["location"]})
    response = await _log(platform, run_id, name, 0, follow=False)
    response.headers["Content-Disposition"] = "attachment"
    return response


@router.get(
    "/runs/{run_id}/sbom",
    summary="Download the bill of materials of a run's environment",
    response_class=Response,
    responses={
        **documented(404),
        200: {"description": "CycloneDX 1.6, JSON.", "content": {SBOM_TYPE: {}}},
    },
)
async def get_sbom(run_id: RunId, platform: Here) -> Response:
    """What was installed in the environment that the run got."""
    run = await find_run(platform, run_id)
    return await sbom(platform, run.image.sbom_digest if run.image else None, run_id)


@router.get("/runs/{run_id}/metrics", summary="Read logged values", responses=documented(404))
async def get_metrics(
    run_id: RunId,
    platform: Here,
    name: Annotated[str | None, Query(max_length=255, description="Only this metric.")] = None,
    after: Annotated[int, Query(ge=0, description="Only values after this sequence.")] = 0,
    limit: Annotated[int, Query(ge=1, le=10_000, description="Most values in the answer.")] = 1000,
) -> MetricList:
    """Values in the order they were logged."""
    try:
        return await platform.ask(
            "history", "run-metrics", MetricList, run_id=run_id, name=name, after=after, limit=limit
        )
    except NotFoundError:
        await find_run(platform, run_id)
        return MetricList()


async def _log(
    platform: Platform,
    run_id: str,
    path: str,
    offset: int,
    *,
    follow: bool,
    attempt: int | None = None,
) -> LiveResponse:
    run = await find_run(platform, run_id, stale=True)
    log = RunLog(platform, run, path, attempt)
    first = await log.read(offset, 0)
    if first.missing and (not follow or run.status in TERMINAL):
        why = "a client drives it, and keeps what it prints" if run.kind == "interactive" else "yet"
        raise NotFoundError(
            f"Run {run_id} has no log {path!r} ({why}); see GET /api/v1/runs/{run_id}/logs.",
            code="log.not_found",
            field="path",
        )
    content = follow_log(platform, log, offset) if follow else present(log, offset, first)
    return LiveResponse(platform, content, LOG_TYPE)
