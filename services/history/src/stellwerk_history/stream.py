"""A stream as history needs it: every message once, in stream order, without holes.

A pull consumer is in order only until something breaks: when a process or a connection dies, what
it had fetched comes again seconds later, behind newer messages. History keeps its own position
instead, written with each batch's effects, and reads what is missing before it straight from the
stream. A repeat lies behind the position and is dropped. An empty store is filled the same way
with all that the stream still has.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import structlog
from nats.errors import Error as NatsError
from nats.js.errors import NotFoundError
from prometheus_client import Counter

from stellwerk_kit.bus import Bus
from stellwerk_kit.consumer import Delivery
from stellwerk_kit.topology import CONSUMERS

FILL_BATCH = 256

REPEATED = Counter("stellwerk_history_repeated", "Messages that were handled before", ["consumer"])
FILLED = Counter("stellwerk_history_filled", "Messages read from the stream itself", ["consumer"])

Handle = Callable[[list[Delivery]], Awaitable[None]]

log = structlog.get_logger()


class InOrder:
    """Stands between a batch consumer and its handler.

    ``handle`` gets deliveries in stream order and must write the last one's sequence with its
    effects; ``position`` is what it had written when this process began. ``past`` is set once all
    that was in the stream when it was recovered has been handled.
    """

    def __init__(self, bus: Bus, consumer: str, position: int, handle: Handle) -> None:
        self._bus, self._consumer, self._handle = bus, consumer, handle
        self._spec = next(spec for spec in CONSUMERS if spec.name == consumer)
        self._position, self._end = position, 0
        self.past = asyncio.Event()

    async def recover(self) -> None:
        """Handle now what an earlier process had fetched and not finished.

        It would come by itself seconds later; where the broker does not tell, it does.
        """
        try:
            await self._recover()
        except (NatsError, TimeoutError) as error:
            log.warning(
                "recovery is left to the consumer",
                action="recover_failed",
                consumer=self._consumer,
                error=str(error) or type(error).__name__,
            )
        self._reached()

    async def _recover(self) -> None:
        try:
            state = (await self._bus.js.stream_info(self._spec.stream)).state
            info = await self._bus.js.consumer_info(self._spec.stream, self._consumer)
        except NotFoundError:
            return  # a new platform: nothing was ever fetched
        if state.last_seq < self._position:
            log.warning(
                "the stream began anew",
                action="stream_reset",
                consumer=self._consumer,
                position=self._position,
                last=state.last_seq,
            )
            self._position = 0
        self._end = state.last_seq if state.messages else 0
        fetched = info.delivered.stream_seq if info.delivered else 0
        if fetched > self._position:
            await self._fill(fetched + 1)

    async def __call__(self, deliveries: list[Delivery]) -> None:
        """Handle a batch, and before it what is missing in front of it."""
        ordered = sorted(deliveries, key=lambda delivery: delivery.stream_sequence)
        run: list[Delivery] = []
        for delivery in ordered:
            expected = (run[-1].stream_sequence if run else self._position) + 1
            if delivery.stream_sequence < expected:
                REPEATED.labels(self._consumer).inc()
                continue
            if delivery.stream_sequence > expected:
                await self._done(run)
                run = []
                await self._fill(delivery.stream_sequence)
            run.append(delivery)
        await self._done(run)

    async def _done(self, run: list[Delivery]) -> None:
        if run:
            await self._handle(run)
            self._position = run[-1].stream_sequence
            self._reached()

    def _reached(self) -> None:
        if self._position >= self._end:
            self.past.set()

    async def _fill(self, end: int) -> None:
        """Handle everything between the position and ``end`` that the stream still has."""
        batch: list[Delivery] = []
        async for delivery in self._stored(self._position + 1, end):
            batch.append(delivery)
            if len(batch) == FILL_BATCH:
                await self._done(batch)
                batch = []
        await self._done(batch)

    async def _stored(self, begin: int, end: int) -> AsyncIterator[Delivery]:
        sequence, everything = begin, self._spec.filters[0]
        while sequence < end:
            try:
                message = await self._bus.js.get_msg(
                    self._spec.stream, sequence, everything, direct=True, next=True
                )
            except NotFoundError:
                return
            if message.seq is None or message.seq >= end:
                return
            FILLED.labels(self._consumer).inc()
            yield Delivery(
                message.subject or "",
                message.headers or {},
                message.data or b"",
                message.seq,
                message.time,
            )
            sequence = message.seq + 1
