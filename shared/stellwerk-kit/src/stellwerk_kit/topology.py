"""Streams and consumers of the platform, as data; plan, apply and verify.

``python -m stellwerk_kit.topology plan|apply``. Applied by one job; services only verify, so that
none of them changes what another relies on. Settings follow docs/adr/0003.
"""

import asyncio
import sys
from dataclasses import dataclass, field

from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DiscardPolicy,
    RetentionPolicy,
    StorageType,
    StreamConfig,
)
from nats.js.errors import NotFoundError

from stellwerk import subjects
from stellwerk.events import MAX_EVENT_BYTES

MIB = 1024 * 1024
DAY_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream. ``interest`` retention drops a message once every consumer has it."""

    name: str
    subjects: tuple[str, ...]
    max_bytes: int
    max_age_s: float
    max_msg_size: int
    interest: bool = False
    fixed: bool = False

    def config(self) -> StreamConfig:
        """The broker's form."""
        return StreamConfig(
            name=self.name,
            subjects=list(self.subjects),
            retention=RetentionPolicy.INTEREST if self.interest else RetentionPolicy.LIMITS,
            storage=StorageType.FILE,
            discard=DiscardPolicy.NEW,
            max_bytes=self.max_bytes,
            max_age=self.max_age_s,
            max_msg_size=self.max_msg_size,
            duplicate_window=600,
            allow_direct=True,
            deny_delete=self.fixed,
            deny_purge=self.fixed,
            num_replicas=1,
        )


@dataclass(frozen=True, slots=True)
class ConsumerSpec:
    """One durable pull consumer. ``workers`` messages are handled at a time.

    ``ordered``: one message (or batch) at a time, in stream order. ``linger_s``: how long a batch
    waits for more while messages come fast.
    """

    name: str
    stream: str
    filters: tuple[str, ...]
    workers: int = 8
    ordered: bool = False
    batch: int = 1
    linger_s: float = 0.0
    ack_wait_s: float = 5.0
    max_deliver: int = 8

    def config(self) -> ConsumerConfig:
        """The broker's form."""
        return ConsumerConfig(
            durable_name=self.name,
            filter_subjects=list(self.filters),
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=self.ack_wait_s,
            # The kit counts and sends the dead letter itself: a broker that gives up tells nobody.
            max_deliver=-1,
            max_ack_pending=max(2 * self.workers, 2 * self.batch),
        )


STREAMS = (
    Stream(
        "SW_EVENTS",
        (subjects.EVENTS,),
        2048 * MIB,
        30 * DAY_S,
        MAX_EVENT_BYTES + 16_384,
        fixed=True,
    ),
    Stream("SW_LOGS", (subjects.LOGS,), 4096 * MIB, DAY_S, 512 * 1024, interest=True),
    Stream("SW_METRICS", (subjects.METRICS,), 1024 * MIB, DAY_S, 512 * 1024, interest=True),
    Stream("SW_DEAD", (subjects.DEAD,), 256 * MIB, 90 * DAY_S, MIB),
    Stream(
        "SW_ADVISORY",
        (
            "$JS.EVENT.ADVISORY.CONSUMER.MAX_DELIVERIES.>",
            "$JS.EVENT.ADVISORY.CONSUMER.MSG_TERMINATED.>",
        ),
        64 * MIB,
        30 * DAY_S,
        256 * 1024,
    ),
)

CONSUMERS = (
    ConsumerSpec(
        "scheduler-facts",
        "SW_EVENTS",
        (
            "sw.evt.submission.*.*",
            "sw.evt.image.*.ready",
            "sw.evt.image.*.failed",
            "sw.evt.dataset.*.ready",
            "sw.evt.dataset.*.failed",
            "sw.evt.node.*.*",
            "sw.evt.attempt.*.*.*",
            "sw.evt.archive.*.*",
        ),
        workers=64,
    ),
    ConsumerSpec("environment-build-runs", "SW_EVENTS", ("sw.evt.run.*.preparing",)),
    ConsumerSpec("dataset-runs", "SW_EVENTS", ("sw.evt.run.*.preparing", "sw.evt.run.*.completed")),
    ConsumerSpec(
        "model-registry-runs",
        "SW_EVENTS",
        ("sw.evt.run.*.completed", "sw.evt.run.*.failed", "sw.evt.run.*.canceled"),
        workers=32,
        linger_s=0.5,
    ),
    ConsumerSpec(
        "history-events",
        "SW_EVENTS",
        (subjects.EVENTS,),
        workers=1,
        ordered=True,
        batch=256,
        linger_s=0.05,
    ),
    ConsumerSpec("history-logs", "SW_LOGS", (subjects.LOGS,), workers=1, ordered=True, batch=128),
    ConsumerSpec(
        "history-metrics", "SW_METRICS", (subjects.METRICS,), workers=1, ordered=True, batch=128
    ),
)


def executor_consumer(executor_id: str) -> ConsumerSpec:
    """The consumer of one executor: all that is addressed to it."""
    return ConsumerSpec(
        f"executor-{executor_id}",
        "SW_EVENTS",
        (f"sw.evt.run.*.*.{executor_id}", f"sw.evt.pool.*.*.{executor_id}"),
    )


@dataclass(frozen=True, slots=True)
class Plan:
    """Differences between the data above and the broker."""

    missing: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    details: tuple[str, ...] = field(default=())

    @property
    def empty(self) -> bool:
        """Whether the broker is as it should be."""
        return not (self.missing or self.changed)


async def plan(js: JetStreamContext, consumers: tuple[ConsumerSpec, ...] = CONSUMERS) -> Plan:
    """Compare the broker with the data."""
    missing, changed, details = [], [], []
    for stream in STREAMS:
        try:
            have = (await js.stream_info(stream.name)).config
        except NotFoundError:
            missing.append(stream.name)
            continue
        if drift := _drift(
            stream.config(),
            have,
            ("subjects", "retention", "discard", "max_bytes", "max_age", "max_msg_size"),
        ):
            changed.append(stream.name)
            details.append(f"{stream.name}: {drift}")
    for spec in consumers:
        try:
            found = (await js.consumer_info(spec.stream, spec.name)).config
        except NotFoundError:
            missing.append(spec.name)
            continue
        if drift := _consumer_drift(spec.config(), found):
            changed.append(spec.name)
            details.append(f"{spec.name}: {drift}")
    return Plan(tuple(missing), tuple(changed), tuple(details))


async def apply(js: JetStreamContext, consumers: tuple[ConsumerSpec, ...] = CONSUMERS) -> Plan:
    """Create what is missing, update what differs; returns what was done."""
    todo = await plan(js, consumers)
    for stream in STREAMS:
        if stream.name in todo.missing:
            await js.add_stream(stream.config())
        elif stream.name in todo.changed:
            await js.update_stream(stream.config())
    for spec in consumers:
        if spec.name in todo.missing or spec.name in todo.changed:
            await js.add_consumer(spec.stream, spec.config())
    return todo


def _drift(want: StreamConfig, have: StreamConfig, names: tuple[str, ...]) -> str:
    pairs = ((name, getattr(want, name), getattr(have, name)) for name in names)
    return ", ".join(
        f"{name} is {got!r}, should be {need!r}" for name, need, got in pairs if need != got
    )


def _consumer_drift(want: ConsumerConfig, have: ConsumerConfig) -> str:
    filters = have.filter_subjects or ([have.filter_subject] if have.filter_subject else [])
    pairs = [
        ("filters", sorted(want.filter_subjects or []), sorted(filters)),
        ("ack_wait", want.ack_wait, have.ack_wait),
        ("max_ack_pending", want.max_ack_pending, have.max_ack_pending),
        ("max_deliver", want.max_deliver, have.max_deliver),
    ]
    return ", ".join(
        f"{name} is {got!r}, should be {need!r}" for name, need, got in pairs if need != got
    )


async def _main(verb: str) -> int:
    from stellwerk_kit.bus import Bus  # noqa: PLC0415 - only the command needs a connection
    from stellwerk_kit.settings import ServiceSettings  # noqa: PLC0415

    bus = await Bus.connect(ServiceSettings(), "topology")
    try:
        done = await (plan(bus.js) if verb == "plan" else apply(bus.js))
    finally:
        await bus.close()
    for name in done.missing:
        print(f"{'missing' if verb == 'plan' else 'created'}: {name}")  # noqa: T201
    for line in done.details:
        print(f"{'differs' if verb == 'plan' else 'updated'}: {line}")  # noqa: T201
    return 1 if verb == "plan" and not done.empty else 0


if __name__ == "__main__":
    if sys.argv[1:] not in (["plan"], ["apply"]):
        sys.exit("usage: python -m stellwerk_kit.topology plan|apply")
    sys.exit(asyncio.run(_main(sys.argv[1])))
