"""The runner of a service: settings, logs, broker, store, health, signals, orderly stop.

``run(name, Settings, build)`` is all of a service's ``__main__``. ``build`` composes the service
on the :class:`Runtime` it is given.
"""

import asyncio
import gc
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Generic, TypeVar

import structlog
import uvloop
from nats.js.errors import NotFoundError
from pydantic import BaseModel, ValidationError
from sqlalchemy import MetaData

from stellwerk.errors import ServiceUnavailableError
from stellwerk_kit import topology
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import Clock, SystemClock
from stellwerk_kit.consumer import BatchHandler, Consumer, Handlers
from stellwerk_kit.db import Database
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.operations import Operations, Route
from stellwerk_kit.outbox import Relay
from stellwerk_kit.rpc import Answer, responder
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.voice import Voice
from stellwerk_kit.wire import Message

S = TypeVar("S", bound=ServiceSettings)
INBOX_PRUNE_S = 3600.0
STOP_LIMIT_S = 20.0


class Trigger:
    """Wakes a periodic function before its time."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    def hint(self) -> None:
        """Run the function at once, or once more if it runs."""
        self.event.set()


class Runtime(Generic[S]):
    """What a service is composed on. Consumers and verbs begin when ``build`` has returned."""

    def __init__(self, name: str, settings: S, bus: Bus, clock: Clock | None = None) -> None:
        self.name, self.settings, self.bus = name, settings, bus
        self.clock: Clock = clock or SystemClock()
        self.log = structlog.get_logger().bind(service=name)
        self._source = f"/stellwerk/{name}/{settings.instance}"
        self.voice = Voice(bus, self.clock, self._source)
        self.tasks = TaskOwner()
        self.operations = Operations(settings.http_host, settings.http_port)
        self._consumers: list[tuple[Consumer, Callable[[], None]]] = []
        self._verbs: list[tuple[str, type[BaseModel], Answer]] = []
        self._databases: list[tuple[Database, Relay]] = []
        self._stops: list[Callable[[], Awaitable[None]]] = []
        self._stores: list[ObjectStore] = []

    async def database(self, metadata: MetaData) -> Database:
        """Open the service's store and begin to publish what it emits."""
        self.settings.data_dir.mkdir(parents=True, exist_ok=True)
        url = (
            self.settings.database_url
            or f"sqlite:///{self.settings.data_dir.resolve()}/{self.name}.db"
        )
        url = url.replace("{service}", self.name.replace("-", "_"))
        db = Database(url, metadata, clock=self.clock, source=self._source)
        await db.start()
        relay = Relay(db, self.bus, self.tasks, self.name)
        await relay.start()
        self._databases.append((db, relay))
        self.every("prune-inbox", INBOX_PRUNE_S, db.prune_inbox)
        return db

    async def objects(self) -> ObjectStore:
        """The object store, its bucket made if needed; waits for the server up to 30 s."""
        store = ObjectStore(self.settings)
        for delay in (0.1, 0.2, 0.5, 1.0, 2.0, 4.0, 8.0, 14.0, None):
            try:
                await store.ensure_bucket()
                break
            except ServiceUnavailableError:
                if delay is None:
                    raise
                await asyncio.sleep(delay)
        self._stores.append(store)
        return store

    def consume(
        self,
        consumer: str | topology.ConsumerSpec,
        handlers: Handlers,
        haste: asyncio.Event | None = None,
    ) -> None:
        """Handle events of a durable consumer, one at a time per worker.

        ``haste`` is set while somebody waits for what comes: then the consumer does not linger.
        """
        worker = Consumer(self.bus, _spec(consumer), self.tasks, haste)
        self._consumers.append((worker, lambda: worker.start(handlers)))

    def consume_batch(
        self, consumer: str, handler: BatchHandler, haste: asyncio.Event | None = None
    ) -> None:
        """Handle batches of an ordered durable consumer; ``haste`` as for :meth:`consume`."""
        worker = Consumer(self.bus, _spec(consumer), self.tasks, haste)
        self._consumers.append((worker, lambda: worker.start_batches(handler)))

    def rpc(self, verb: str, request: type[BaseModel], answer: Answer) -> None:
        """Answer ``sw.rpc.<service>.<verb>``."""
        self._verbs.append((verb, request, answer))

    def every(self, name: str, interval_s: float, work: Callable[[], Awaitable[None]]) -> Trigger:
        """Run ``work`` every ``interval_s`` seconds and whenever the trigger is hinted.

        An exception is logged and the next round comes all the same.
        """
        trigger = Trigger()

        async def loop() -> None:
            while True:
                with suppress(TimeoutError):
                    await asyncio.wait_for(trigger.event.wait(), interval_s)
                trigger.event.clear()
                try:
                    await work()
                except Exception:
                    self.log.exception("periodic work failed", action="loop_failed", loop=name)

        self.spawn(name, loop())
        return trigger

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run a background task; the service ends with an error when it fails."""
        return self.tasks.spawn(coro, name)

    def on_stop(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run ``work`` at the end, after the consumers have stopped; last added, first run."""
        self._stops.append(work)

    def route(self, path: str, answer: Route) -> None:
        """Add a page to the operations port."""
        self.operations.routes[path] = answer

    async def start(self) -> None:
        """Begin: operations port, verbs, consumers; then ready."""
        await self.operations.start()
        await ensure_consumers(self.bus, [consumer.spec for consumer, _ in self._consumers])
        for verb, request, answer in self._verbs:
            respond = responder(verb, request, answer)
            await self.bus.serve(self.name, verb, self._in_background(verb, respond))
        await self.bus.flush()  # the broker knows the verbs before anybody is told "ready"
        for _, begin in self._consumers:
            begin()
        self.operations.ready = True
        self.log.info("ready", action="ready", port=self.operations.port, pid=os.getpid())

    async def stop(self) -> None:
        """End in order: no new work, running handlers, outbox, connections."""
        self.operations.ready = False
        await asyncio.gather(*(consumer.stop() for consumer, _ in self._consumers))
        for work in reversed(self._stops):
            await work()
        for _, relay in self._databases:
            await relay.drain(5.0)
        await self.tasks.close()
        for db, _ in self._databases:
            await db.close()
        for store in self._stores:
            store.close()
        await self.operations.stop()
        await self.bus.close()

    def _in_background(
        self, verb: str, respond: Callable[[Message], Coroutine[Any, Any, None]]
    ) -> Callable[[Message], None]:
        """Requests may wait long, and they come one after another: do not hold up the next."""

        def handle(message: Message) -> None:
            self.tasks.spawn(respond(message), f"rpc-{verb}")

        return handle


Build = Callable[[Runtime[S]], Awaitable[None]]


async def ensure_consumers(
    bus: Bus, specs: list[topology.ConsumerSpec], limit_s: float = 30.0
) -> None:
    """Wait until the shared consumers exist (one job makes them); make those of this instance."""
    deadline = asyncio.get_running_loop().time() + limit_s
    for spec in specs:
        if spec not in topology.CONSUMERS:
            await bus.js.add_consumer(spec.stream, spec.config())
            continue
        while not await _exists(bus, spec):
            if asyncio.get_running_loop().time() > deadline:
                raise ServiceUnavailableError(
                    f"consumer {spec.name} does not exist; "
                    "run: python -m stellwerk_kit.topology apply",
                    code="topology.missing",
                )
            await asyncio.sleep(0.1)


async def _exists(bus: Bus, spec: topology.ConsumerSpec) -> bool:
    try:
        await bus.js.consumer_info(spec.stream, spec.name)
    except (NotFoundError, TimeoutError):
        return False
    return True


def run(name: str, settings_class: type[S], build: Build[S]) -> None:
    """Run a service until SIGTERM or SIGINT; exits 2 for bad settings, 1 for a failure."""
    try:
        settings = settings_class()
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            where = "_".join(str(part) for part in item["loc"]).upper()
            print(f"{name}: setting STELLWERK_{where}: {item['msg']}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
    configure_logs(settings.log_level)
    sys.exit(uvloop.run(_main(name, settings, build)))


async def _main(name: str, settings: S, build: Build[S]) -> int:
    log = structlog.get_logger().bind(service=name)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        bus = await Bus.connect(settings, name)
        runtime = Runtime(name, settings, bus)
        await build(runtime)
        await runtime.start()
    except Exception as error:
        log.error(
            "cannot start",
            action="start_failed",
            error=str(error),
            exc_info=settings.log_level == "debug",
        )
        return 1
    gc.collect()
    gc.freeze()
    waits = [
        runtime.tasks.spawn_quiet(event.wait(), f"wait-{index}")
        for index, event in enumerate((stop, bus.lost, runtime.tasks.failed))
    ]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    failed = not stop.is_set()
    if failed:
        log.error(
            "service failed",
            action="failed",
            error=str(runtime.tasks.failure or "the broker connection is closed for good"),
        )
    try:
        await asyncio.wait_for(runtime.stop(), STOP_LIMIT_S)
    except TimeoutError:
        log.error("stop took too long", action="stop_timeout")
        os._exit(1)
    log.info("stopped", action="stopped")
    return 1 if failed else 0


def configure_logs(level: str) -> None:
    """JSON lines on stderr, one object an event, with ``action=``."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def _spec(consumer: str | topology.ConsumerSpec) -> topology.ConsumerSpec:
    if isinstance(consumer, topology.ConsumerSpec):
        return consumer
    return next(spec for spec in topology.CONSUMERS if spec.name == consumer)
