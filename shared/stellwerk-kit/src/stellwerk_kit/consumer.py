"""Durable consumers: one message at a time per worker, or ordered batches.

A single message is handled the moment it comes, so its time to be acknowledged starts with its
handler, back-pressure is natural and a stop is exact (``pull.py``). A handler ends in one of four
ways: it returns (acknowledged), raises Retry (given back), Reject (dead letter), or anything else
(given back with growing delay, at the last delivery a dead letter).
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import structlog
from nats.errors import Error as NatsError
from prometheus_client import Counter

from stellwerk import subjects
from stellwerk.errors import ProtocolError
from stellwerk.events import Envelope, Event, UnknownEventTypeError, decode
from stellwerk_kit import telemetry
from stellwerk_kit.bus import Bus
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.pull import Pull
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.topology import ConsumerSpec
from stellwerk_kit.wire import Message

MAX_DELAY_S = 60.0
CRASH_LIMIT = 10

log = structlog.get_logger()


class Retry(Exception):  # noqa: N818 - an outcome, not an error
    """Give the message back; it comes again after ``after_s`` seconds."""

    def __init__(self, reason: str, after_s: float = 1.0) -> None:
        super().__init__(reason)
        self.after_s = after_s


class Reject(Exception):  # noqa: N818 - an outcome, not an error
    """No retry can help: the message goes to the dead letters."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A raw message of a batch."""

    subject: str
    headers: dict[str, str]
    body: bytes
    stream_sequence: int
    stored_at: datetime | None = None

    def decode(self) -> Envelope:
        """The event; raises like ``stellwerk.events.decode``."""
        return decode(self.subject, self.headers, self.body, self.stored_at)


Handlers = dict[type[Event], Callable[[Envelope], Awaitable[None]]]
BatchHandler = Callable[[list[Delivery]], Awaitable[None]]


class Consumer:
    """Takes messages of one durable consumer until stopped."""

    def __init__(
        self, bus: Bus, spec: ConsumerSpec, tasks: TaskOwner, haste: asyncio.Event | None = None
    ) -> None:
        """``haste`` is set while somebody waits for what comes: nothing lingers then."""
        self.spec = spec
        self._haste = haste
        self._bus, self._spec, self._tasks = bus, spec, tasks
        self._stopping = asyncio.Event()
        self._loop: asyncio.Task[Any] | None = None
        self._running: set[asyncio.Task[Any]] = set()
        self._pull = Pull(bus, spec.stream, spec.name)
        self._seconds = telemetry.HANDLE_SECONDS.labels(spec.name)
        self._handled: dict[type[Event], Counter] = {}

    def start(self, handlers: Handlers) -> None:
        """Handle single events, ``spec.workers`` at a time."""
        self._begin(self._each(handlers))

    def start_batches(self, handler: BatchHandler) -> None:
        """Handle batches in stream order; a batch is repeated until its handler succeeds."""
        self._begin(self._batches(handler))

    async def stop(self, timeout_s: float = 15.0) -> None:
        """Take no more messages, let running handlers end, give up after ``timeout_s``."""
        self._stopping.set()
        self._pull.stop()
        tasks = {*self._running, *([self._loop] if self._loop else [])}
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _begin(self, loop: Coroutine[Any, Any, None]) -> None:
        self._loop = self._tasks.spawn(loop, f"consumer-{self._spec.name}")

    async def _each(self, handlers: Handlers) -> None:
        freed = asyncio.Event()

        def ended(task: asyncio.Task[Any]) -> None:
            self._running.discard(task)
            freed.set()

        while not self._stopping.is_set():
            free = self._spec.workers - len(self._running)
            if not free:
                freed.clear()
                await freed.wait()
                continue
            for message in await self._take(free):
                name = f"handle-{self._spec.name}"
                task = self._tasks.spawn(self._settle(message, handlers), name)
                self._running.add(task)
                task.add_done_callback(ended)
        await self._close()

    async def _batches(self, handler: BatchHandler) -> None:
        while not self._stopping.is_set():
            messages = await self._take(self._spec.batch)
            if messages:
                await self._settle_batch(messages, handler)
        await self._close()

    async def _take(self, most: int) -> list[Message]:
        """Messages as they come; none after trouble with the broker, or when told to stop."""
        self._bus.on_reconnect.add(self._pull.again)
        try:
            return await self._pull.some(most, self._spec.linger_s, self._haste)
        except (NatsError, OSError) as error:
            log.warning(
                "fetch failed",
                action="fetch_failed",
                consumer=self._spec.name,
                error=str(error) or type(error).__name__,
            )
            await self._close()
            await asyncio.sleep(random.uniform(0.1, 0.3))  # noqa: S311 - jitter
            if not self._stopping.is_set():
                self._pull = Pull(self._bus, self._spec.stream, self._spec.name)
            return []

    async def _close(self) -> None:
        self._bus.on_reconnect.discard(self._pull.again)
        await self._pull.close()

    async def _settle(self, message: Message, handlers: Handlers) -> None:
        name = self._spec.name
        delivered = message.delivered
        if delivered > 1:
            telemetry.REDELIVERED.labels(name).inc()
        if delivered > CRASH_LIMIT * self._spec.max_deliver:
            await self._dead_letter(message, f"delivered {delivered} times without an answer")
            return
        try:
            with self._held([message]):
                await self._handle(message, handlers)
            failpoint(f"{name}.before_ack")
            message.ack()
        except Retry as outcome:
            await self._give_back(message, str(outcome), outcome.after_s)
        except (Reject, ProtocolError) as outcome:
            await self._dead_letter(message, str(outcome))
        except (NatsError, OSError) as error:
            log.warning("not acknowledged", action="ack_failed", consumer=name, error=str(error))
        except Exception as error:
            log.exception(
                "handler failed", action="handler_failed", consumer=name, subject=message.subject
            )
            if delivered >= self._spec.max_deliver:
                await self._dead_letter(
                    message, f"{type(error).__name__} in the handler, {delivered} times"
                )
            else:
                await self._give_back(
                    message, type(error).__name__, min(MAX_DELAY_S, 2.0**delivered / 4)
                )

    async def _handle(self, message: Message, handlers: Handlers) -> None:
        try:
            envelope = decode(message.subject, message.headers, message.data, message.stored_at)
        except UnknownEventTypeError:
            telemetry.HANDLED.labels(self._spec.name, "unknown").inc()
            return
        handler = handlers.get(type(envelope.event))
        if handler is None:
            return
        started = time.perf_counter()
        await handler(envelope)
        self._seconds.observe(time.perf_counter() - started)
        kind = type(envelope.event)
        if kind not in self._handled:
            self._handled[kind] = telemetry.HANDLED.labels(self._spec.name, kind.type_name())
        self._handled[kind].inc()

    async def _settle_batch(self, messages: list[Message], handler: BatchHandler) -> None:
        name = self._spec.name
        deliveries = [
            Delivery(m.subject, m.headers, m.data, m.sequence, m.stored_at) for m in messages
        ]
        try:
            with self._held(messages):
                if not await self._until_handled(deliveries, handler):
                    return
            failpoint(f"{name}.before_ack")
            for message in messages:
                message.ack()
            telemetry.HANDLED.labels(name, "batch").inc(len(messages))
        except (NatsError, OSError) as error:
            log.warning("not acknowledged", action="ack_failed", consumer=name, error=str(error))

    async def _until_handled(self, deliveries: list[Delivery], handler: BatchHandler) -> bool:
        """Repeat the handler until it succeeds; False when told to stop before."""
        delay = 0.1
        while not self._stopping.is_set():
            try:
                await handler(deliveries)
            except Exception:
                log.exception(
                    "batch failed",
                    action="batch_failed",
                    consumer=self._spec.name,
                    size=len(deliveries),
                )
                await asyncio.sleep(delay)
                delay = min(5.0, delay * 2)
                continue
            return True
        return False

    @contextmanager
    def _held(self, messages: list[Message]) -> Iterator[None]:
        """Keep messages ours while they are handled; costs a task only when that takes long."""
        every_s = self._spec.ack_wait_s / 3
        beating: list[asyncio.Task[Any]] = []

        def begin() -> None:
            beat = self._heartbeat(messages, every_s)
            beating.append(self._tasks.spawn(beat, f"heartbeat-{self._spec.name}"))

        timer = asyncio.get_running_loop().call_later(every_s, begin)
        try:
            yield
        finally:
            timer.cancel()
            for task in beating:
                task.cancel()

    async def _heartbeat(self, messages: list[Message], every_s: float) -> None:
        while True:
            try:
                for message in [*messages, *self._pull.waiting]:
                    message.in_progress()
            except (NatsError, OSError):
                return
            await asyncio.sleep(every_s)

    async def _give_back(self, message: Message, reason: str, after_s: float) -> None:
        telemetry.RETRIED.labels(self._spec.name).inc()
        log.info(
            "message given back",
            action="retry",
            consumer=self._spec.name,
            subject=message.subject,
            reason=reason,
            after_s=after_s,
        )
        try:
            message.nak(after_s * random.uniform(0.8, 1.2))  # noqa: S311 - jitter
        except (NatsError, OSError) as error:
            log.warning(
                "not given back", action="nak_failed", consumer=self._spec.name, error=str(error)
            )

    async def _dead_letter(self, message: Message, reason: str) -> None:
        name = self._spec.name
        telemetry.REJECTED.labels(name).inc()
        log.error(
            "dead letter",
            action="dead_letter",
            consumer=name,
            subject=message.subject,
            reason=reason,
        )
        headers = {
            key: text for key, text in message.headers.items() if key.lower().startswith("ce-")
        }
        sequence = message.sequence
        headers |= {
            "Nats-Msg-Id": f"dead/{name}/{sequence}",
            "Sw-Reason": reason.replace("\n", " ")[:500],
            "Sw-Subject": message.subject,
            "Sw-Sequence": str(sequence),
        }
        await self._bus.publish_until_stored(subjects.dead(name), message.data, headers)
        try:
            message.term()
        except (NatsError, OSError) as error:
            log.warning("not terminated", action="term_failed", consumer=name, error=str(error))
