"""Files under ``./logs`` of runs that clients drive, published as an executor publishes a run's."""

from urllib.parse import quote

from stellwerk import subjects
from stellwerk.api import RunView
from stellwerk.errors import ConflictError, UserError
from stellwerk.events import LogClosure
from stellwerk.manifest import safe_path
from stellwerk.run_records import LogChunk, LogChunkView, LogEnd
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.platform import Platform

ATTEMPT = 1


async def add_chunk(platform: Platform, run: RunView, chunk: LogChunk) -> LogChunkView:
    """Publish some bytes of a log; they are stored for good when this returns.

    Raises UserError ``log.path``; ConflictError ``run.not_interactive``, ``run.ended``.
    """
    path = _checked(chunk.path)
    if run.kind != "interactive":
        raise ConflictError(
            "This run is a script's: its executor sends what lies in its ./logs.",
            code="run.not_interactive",
            field="run_id",
        )
    if run.status in TERMINAL:
        raise ConflictError(f"The run is {run.status}: its logs are closed.", code="run.ended")
    stream, end = subjects.file_stream(path), chunk.offset + len(chunk.data)
    headers = {
        "Nats-Msg-Id": f"log/{run.run_id}/{ATTEMPT}/{stream}/{chunk.offset}-{end}",
        "Sw-Offset": str(chunk.offset),
        "Sw-Path": quote(path),
    }
    subject = subjects.log(run.run_id, ATTEMPT, stream)
    await platform.bus.publish_raw(subject, chunk.data, headers)
    return LogChunkView(next=end)


def closures(logs: tuple[LogEnd, ...]) -> tuple[LogClosure, ...]:
    """What history has to wait for. Raises UserError ``log.path``."""
    return tuple(
        LogClosure(
            stream=subjects.file_stream(path), path=path, bytes=each.bytes, sha256=each.sha256
        )
        for each in logs
        for path in (_checked(each.path),)
    )


def _checked(path: str) -> str:
    try:
        return safe_path(path)
    except ValueError as error:
        raise UserError(f"path: {error}", code="log.path", field="path") from error
