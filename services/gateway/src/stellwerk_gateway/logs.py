"""Reading logs from history: what is there now, or everything until the log is over."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from stellwerk.api import BuildView, RunView
from stellwerk.errors import NotFoundError, ProtocolError
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.platform import WAIT_S, Platform
from stellwerk_gateway.streams import Outage, RunEvents
from stellwerk_kit.rpc import RawReply

CHUNK_BYTES = 256 * 1024
MISSING_WAIT_S = 1.0


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a log; ``closed`` when nothing will be added; ``missing`` when it is not there.

    ``attempt``: whose log it is, 0 where that is nobody's or not known.
    """

    body: bytes
    next_offset: int
    closed: bool
    missing: bool = False
    attempt: int = 0


class LogSource(Protocol):
    """One log that may still grow."""

    async def read(self, offset: int, wait_s: float) -> Chunk:
        """Bytes from ``offset``, waiting up to ``wait_s`` seconds for the first."""
        ...

    async def ended(self, wait_s: float) -> bool:
        """Whether who writes it is over, waiting up to ``wait_s`` seconds for news."""
        ...


class RunLog:
    """A log of one attempt of ``run``: of ``attempt``, or without it of the present one.

    ``path`` is what the log is called while that attempt is the latest.
    """

    def __init__(
        self, platform: Platform, run: RunView, path: str, attempt: int | None = None
    ) -> None:
        self._platform, self._run, self._path = platform, run, path
        self._events = RunEvents(
            platform, run.run_id, run.sequence, attempt=run.attempt, accepted=True
        )
        self._events.over = run.status in TERMINAL
        self._attempt = attempt or run.attempt

    async def read(self, offset: int, wait_s: float) -> Chunk:
        """Bytes from ``offset``; a chunk that is ``missing`` while there is no such log."""
        try:
            reply = await self._platform.read(
                "history",
                "log-read",
                wait_s=wait_s,
                run_id=self._run.run_id,
                path=self._path,
                attempt=self._attempt or None,
                offset=offset,
                limit=CHUNK_BYTES,
            )
        except NotFoundError:
            return Chunk(b"", offset, closed=False, missing=True)
        chunk = _chunk(reply)
        self._attempt = self._attempt or chunk.attempt
        return chunk

    async def ended(self, wait_s: float) -> bool:
        """Whether the run is over, or a later attempt has begun."""
        if not self._events.over and not self._superseded():
            await self._events.read(wait_s)
            self._attempt = self._attempt or self._events.attempt
        return self._events.over or self._superseded()

    def _superseded(self) -> bool:
        return self._events.attempt > self._attempt


class BuildLog:
    """The log of one build of an environment."""

    def __init__(self, platform: Platform, env_id: str, build: int) -> None:
        self._platform, self._env_id, self._build = platform, env_id, build
        self._closed = False

    async def read(self, offset: int, wait_s: float) -> Chunk:
        """Bytes from ``offset``; a chunk that is ``missing`` before the build has written any."""
        try:
            reply = await self._platform.read(
                "history",
                "build-log-read",
                wait_s=wait_s,
                env_id=self._env_id,
                build=self._build,
                offset=offset,
                limit=CHUNK_BYTES,
            )
        except NotFoundError:
            return Chunk(b"", offset, closed=False, missing=True)
        chunk = _chunk(reply)
        self._closed = chunk.closed
        return chunk

    async def ended(self, wait_s: float) -> bool:
        """Whether the build is over; there is no news to wait for, so it waits ``wait_s``."""
        if self._closed:
            return True
        await asyncio.sleep(wait_s)
        view = await self._platform.ask(
            "environment-build", "build-get", BuildView, env_id=self._env_id
        )
        return view.build != self._build or view.state in {"ready", "failed"}


async def present(source: LogSource, offset: int, first: Chunk) -> AsyncIterator[bytes]:
    """What the log has now, from ``offset``; ``first`` was read there already."""
    chunk = first
    while chunk.body:
        yield chunk.body
        offset = chunk.next_offset
        chunk = await source.read(offset, 0)


async def follow_log(platform: Platform, source: LogSource, offset: int) -> AsyncIterator[bytes]:
    """The log from ``offset`` until it is closed and who writes it is over.

    A log that does not exist yet is waited for. When a run is tried again, its log begins anew:
    the stream ends with the attempt's last byte and the client opens the next one at 0.
    """
    outage, over = Outage(platform), False
    while True:
        wait_s = 0.0 if over else WAIT_S
        chunk = await outage.bridge(partial(source.read, offset, wait_s))
        if chunk.body:
            yield chunk.body
            offset = chunk.next_offset
        elif over:
            return
        else:
            patience_s = MISSING_WAIT_S if chunk.missing else WAIT_S if chunk.closed else 0.0
            over = await outage.bridge(partial(source.ended, patience_s))


def _chunk(reply: RawReply) -> Chunk:
    headers = {name.lower(): text for name, text in reply.headers.items()}
    try:
        next_offset, attempt = int(headers["sw-next-offset"]), int(headers["sw-attempt"])
    except (KeyError, ValueError) as error:
        raise ProtocolError("log-read answered without Sw-Next-Offset or Sw-Attempt") from error
    closed = headers.get("sw-closed", "0") in {"1", "true"}
    return Chunk(reply.body, next_offset, closed, attempt=attempt)
