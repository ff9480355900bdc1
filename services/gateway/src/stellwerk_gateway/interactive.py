"""Interactive runs: a client drives them, and says here when they are over."""

from collections.abc import Callable
from contextlib import suppress

from stellwerk import subjects
from stellwerk.api import RunView
from stellwerk.errors import ConflictError, NotFoundError, ServiceUnavailableError
from stellwerk.events import Envelope, RunCancelRequested, RunEndReported
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk.run_records import RunEndRequest
from stellwerk.runstate import TERMINAL, RunStatus
from stellwerk_gateway.client_logs import closures
from stellwerk_gateway.downloads import run_files
from stellwerk_gateway.platform import BEST_EFFORT_S, Platform
from stellwerk_gateway.problems import HttpError
from stellwerk_gateway.records import all_seen
from stellwerk_gateway.replies import EventsReply
from stellwerk_gateway.submission import cancel, find_run

BEGIN_WAIT_S = 3.0
SEEN_WAIT_S = 15.0
END_WAIT_S = 15.0
STOP_WAIT_S = 5.0
WAITS = 20
MAX_REASON = 1000


async def until_begun(platform: Platform, run: RunView) -> RunView:
    """The run once it is Running; as it was when that takes longer than a moment."""
    try:
        return await _until(
            platform, run, BEGIN_WAIT_S, lambda view: view.status != RunStatus.NOT_STARTED
        )
    except (NotFoundError, ServiceUnavailableError):
        return run


async def end(platform: Platform, run: RunView, request: RunEndRequest, who: str) -> RunView:
    """Say that an interactive run is over and wait a moment for its end. Repeats are harmless.

    Raises ConflictError ``run.not_interactive``, HttpError 409 ``run.already_terminal`` for another
    end than the one it has, ServiceUnavailableError while its records are not all stored.
    """
    if run.kind != "interactive":
        return await _end_script(platform, run, request, who)
    run = await until_begun(platform, run)
    if run.status in TERMINAL:
        return await _checked(platform, run, request)
    if run.status == RunStatus.NOT_STARTED or not await all_seen(platform, run, SEEN_WAIT_S):
        raise ServiceUnavailableError("The run's records are still being stored.", code="run.busy")
    await _report(platform, run, request, who)
    ended = await _until(platform, run, END_WAIT_S, lambda view: view.status in TERMINAL)
    return await _checked(platform, ended, request)


async def _end_script(
    platform: Platform, run: RunView, request: RunEndRequest, who: str
) -> RunView:
    """A script's run can only be stopped; to say again that it has completed is harmless."""
    if run.status == request.status == "Completed":
        return run
    if request.status == "Completed":
        raise ConflictError(
            "This run is a script's: it completes when the script does. It may be ended as Failed "
            "or Canceled.",
            code="run.not_interactive",
            field="run_id",
        )
    fact = RunCancelRequested(
        run_id=run.run_id,
        requested_by=who,
        reason=request.message[:MAX_REASON],
        outcome=request.status,
        code=request.code,
    )
    asked = await cancel(platform, fact)
    return await _until(platform, asked, STOP_WAIT_S, lambda view: view.status in TERMINAL)


async def _report(platform: Platform, run: RunView, request: RunEndRequest, who: str) -> None:
    files = [file async for file in run_files(platform, run.run_id)]
    entries = (
        ManifestEntry(path=file.path, size=file.size, sha256=file.sha256)
        for file in files
        if file.sha256 is not None
    )
    try:
        listed = await platform.objects.put_manifest(Manifest(entries=tuple(entries)))
    except ValueError:  # a file and a folder of one name: the archive takes what fits together
        listed = None
    fact = RunEndReported(
        run_id=run.run_id,
        outcome=request.status,
        code=request.code,
        message=request.message,
        outputs_manifest=listed,
        logs=closures(request.logs),
        reported_by=who,
    )
    source = f"/stellwerk/gateway/{platform.settings.instance}"
    envelope = Envelope.wrap(fact, source=source, time=platform.clock.now())
    with suppress(ConflictError):  # somebody was first: see who
        await platform.bus.publish(envelope, expect_first=True)


async def _until(
    platform: Platform, run: RunView, wait_s: float, met: Callable[[RunView], bool]
) -> RunView:
    """The run when a condition is met, or as it is after about ``wait_s`` seconds."""
    deadline = platform.clock.monotonic() + wait_s
    for _ in range(WAITS):
        if met(run) or (left := deadline - platform.clock.monotonic()) <= 0:
            break
        fields = {"run_id": run.run_id, "after": max(1, run.sequence), "wait_s": left}
        await platform.ask("history", "run-events", EventsReply, timeout_s=left + 1, **fields)
        run = await find_run(platform, run.run_id, timeout_s=BEST_EFFORT_S, stale=True)
    return run


async def _checked(platform: Platform, run: RunView, request: RunEndRequest) -> RunView:
    """The run, unless it was ended otherwise."""
    subject = subjects.event("submission", run.run_id, RunEndReported.verb)
    first = await platform.bus.last_event(subject)
    said = first.event if first is not None else None
    ended_as = said.outcome if isinstance(said, RunEndReported) else run.status
    if ended_as != request.status:
        raise _already(ended_as)
    return run


def _already(status: str) -> HttpError:
    return HttpError(
        409, "run.already_terminal", f"The run is {status} already; a run ends only once."
    )
