"""Answers that stay open: status events (SSE) and logs that grow.

Both are history's long poll in a loop; nothing is looked at in intervals. A stream ends when its
run is over, when the client leaves, or when the gateway stops. A short outage of history is
waited out; after a minute the stream breaks off, and the client resumes where it was.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive

from stellwerk.api import RunEventView
from stellwerk.errors import NotFoundError, ServiceUnavailableError
from stellwerk.runstate import TERMINAL
from stellwerk_gateway.platform import ANSWER_S, WAIT_S, Platform
from stellwerk_gateway.replies import EventsReply

OUTAGE_S = 60.0
RETRY_S = 0.5
FIRST_PAUSE_S = 0.01
EVENTS_AT_ONCE = 200

T = TypeVar("T")


class LiveResponse(StreamingResponse):
    """A stream that ends at once when the client leaves or the gateway stops."""

    def __init__(
        self,
        platform: Platform,
        content: AsyncIterator[bytes],
        media_type: str,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(content, media_type=media_type, headers=headers)
        self._stopping = platform.stopping

    async def listen_for_disconnect(self, receive: Receive) -> None:
        """Return when the stream has to end."""
        async with asyncio.TaskGroup() as tasks:
            waits = [
                tasks.create_task(super().listen_for_disconnect(receive)),
                tasks.create_task(_wait(self._stopping)),
            ]
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()


class RunEvents:
    """A run's status events after one sequence number, read in order.

    ``accepted``: the run is known to be submitted, so history not having it yet is no error.
    """

    def __init__(
        self,
        platform: Platform,
        run_id: str,
        after: int = 0,
        *,
        attempt: int = 0,
        accepted: bool = False,
    ) -> None:
        self._platform, self._run_id = platform, run_id
        self._pause_s = FIRST_PAUSE_S
        self.accepted = accepted
        self.after = after
        self.attempt = attempt
        self.over = False

    async def read(self, wait_s: float) -> tuple[RunEventView, ...]:
        """The next events; none when nothing happens within ``wait_s`` seconds."""
        try:
            reply = await self._ask(wait_s)
        except NotFoundError:
            if not self.accepted:
                raise
            await asyncio.sleep(min(wait_s, self._pause_s))
            self._pause_s = min(RETRY_S, 2 * self._pause_s)
            return ()
        if reply.events:
            self.after, self.attempt = reply.events[-1].sequence, reply.events[-1].attempt
        ended = bool(reply.events) and reply.events[-1].status in TERMINAL
        self.over = self.over or ended or (reply.terminal and not reply.events)
        return reply.events

    async def _ask(self, wait_s: float) -> EventsReply:
        return await self._platform.ask(
            "history",
            "run-events",
            EventsReply,
            timeout_s=ANSWER_S + wait_s,
            run_id=self._run_id,
            after=self.after,
            limit=EVENTS_AT_ONCE,
            wait_s=wait_s,
        )


async def sse(
    platform: Platform, events: RunEvents, first: tuple[RunEventView, ...]
) -> AsyncIterator[bytes]:
    """Events as Server-Sent Events: the sequence is the id; a comment at least every 15 s."""
    yield b"retry: 1000\n\n"
    batch: tuple[RunEventView, ...] = first
    outage = Outage(platform)
    while True:
        for event in batch:
            yield f"id: {event.sequence}\ndata: {event.model_dump_json()}\n\n".encode()
        if events.over:
            return
        try:
            batch = await events.read(WAIT_S)
            outage.over()
        except ServiceUnavailableError as error:
            await outage.wait(error)
            batch = ()
        if not batch:
            yield b": still here\n\n"


class Outage:
    """Waits out a service that is away, for a minute at most."""

    def __init__(self, platform: Platform) -> None:
        self._clock = platform.clock
        self._since: float | None = None

    def over(self) -> None:
        """It answers again."""
        self._since = None

    async def wait(self, error: ServiceUnavailableError) -> None:
        """Sleep before the next try. Raises ``error`` when it has been away too long."""
        now = self._clock.monotonic()
        self._since = now if self._since is None else self._since
        if now - self._since > OUTAGE_S:
            raise error
        await asyncio.sleep(RETRY_S)

    async def bridge(self, call: Callable[[], Awaitable[T]]) -> T:
        """The result of ``call``, tried again until the service answers."""
        while True:
            try:
                result = await call()
            except ServiceUnavailableError as error:
                await self.wait(error)
            else:
                self.over()
                return result


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
