"""Facts as the other services would state them, and a broker client that states and hears them."""

import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

from nats.js.api import ConsumerConfig, DeliverPolicy

from stellwerk.events import (
    AttemptExited,
    AttemptStarted,
    DatasetReady,
    Envelope,
    Event,
    ExitSummary,
    Gpu,
    ImageInfo,
    ImageReady,
    NodeJoined,
    NodeResources,
    NodeScaled,
    PoolTargetSet,
    ResolvedInput,
    RunArchived,
    RunAssigned,
    RunFinalizing,
    RunPreparing,
    RunStopRequested,
    RunSubmitted,
    decode,
)
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import wait_until

E = TypeVar("E", bound=Event)
MANIFEST = "a" * 64
IMAGE = ImageInfo(env_id="env-1", python="3.11")
_boots = itertools.count()


def submitted(run_id: str = "r1", **spec: Any) -> RunSubmitted:
    base: dict[str, Any] = {"source": {"inline": {"a.py": "print()"}}, "script": "a.py"}
    return RunSubmitted.model_validate(
        {"run_id": run_id, "experiment": "e", "spec": {**base, **spec}}
    )


def image_ready(*run_ids: str, build: int = 1) -> ImageReady:
    return ImageReady(env_id="env-1", build=build, run_ids=run_ids, image=IMAGE, cached=True)


def dataset_ready(run_id: str = "r1", size: int = 10) -> DatasetReady:
    one = ResolvedInput(
        dataset_id="d", name="d", version=1, mode="mount", path=None, manifest=MANIFEST, files=1,
        bytes=size, single_file=False,
    )  # fmt: skip
    return DatasetReady(run_id=run_id, inputs={"data": one})


def started(run_id: str = "r1", attempt: int = 1, executor: str = "x1") -> AttemptStarted:
    return AttemptStarted(
        run_id=run_id, attempt=attempt, node_id="local-0-x1", executor_id=executor,
        started_at=0.0, pid=7,
    )  # fmt: skip


def exited(
    run_id: str = "r1", attempt: int = 1, reason: str = "exited", code: int | None = 0
) -> AttemptExited:
    summary = ExitSummary.model_validate(
        {"reason": reason, "exit_code": code, "outputs_manifest": MANIFEST}
    )
    return AttemptExited(
        run_id=run_id, attempt=attempt, node_id="local-0-x1", executor_id="x1", exit=summary
    )


def archived(run_id: str = "r1", attempt: int = 1) -> RunArchived:
    return RunArchived(run_id=run_id, attempt=attempt, manifest=MANIFEST, files=1, bytes=1)


def joined(executor: str = "x1", **values: Any) -> NodeJoined:
    machine = NodeResources(
        cpus=8, memory_mb=16_000, gpus=tuple(Gpu(index=i, name="g", memory_mb=1) for i in range(2))
    )
    base: dict[str, Any] = {
        "executor_id": executor, "boot_id": f"boot-{next(_boots)}", "hostname": "h",
        "resources": machine, "max_nodes": 4,
    }  # fmt: skip
    return NodeJoined(**{**base, **values})


def scaled(target: PoolTargetSet, boot: str = "b", size: int | None = None) -> NodeScaled:
    count = target.size if size is None else size
    names = tuple(f"{target.pool}-{i}-{target.executor_id}" for i in range(count))
    return NodeScaled(
        executor_id=target.executor_id, boot_id=boot, pool=target.pool,
        generation=target.generation, from_count=0, to_count=count, nodes=names,
        reason=target.reason,
    )  # fmt: skip


@dataclass
class World:
    """The other services as a script. ``heard`` are the scheduler's events in stream order."""

    bus: Bus
    heard: list[Envelope] = field(default_factory=list)
    automatic: dict[type[Event], Callable[[Any], Event | None]] = field(default_factory=dict)

    async def listen(self) -> None:
        """Begin to hear everything that is on the stream and comes to it."""

        async def on(message: Any) -> None:
            envelope = decode(message.subject, message.headers, message.data)
            if envelope.event.owner != "scheduler":
                return
            self.heard.append(envelope)
            answer = self.automatic.get(type(envelope.event), lambda _: None)(envelope.event)
            if answer is not None:
                await self.say(answer)

        await self.bus.js.subscribe(
            "sw.evt.>",
            stream="SW_EVENTS",
            cb=on,
            ordered_consumer=True,
            config=ConsumerConfig(deliver_policy=DeliverPolicy.ALL),
        )

    async def say(self, *facts: Event) -> None:
        for fact in facts:
            envelope = Envelope.wrap(fact, source="/test", time=datetime.now(UTC))
            await self.bus.publish(envelope)

    def events(self, run_id: str = "r1") -> list[Event]:
        """Run events, repeats under the same number left out."""
        seen = {e.id: e.event for e in self.heard if getattr(e.event, "run_id", None) == run_id}
        return list(seen.values())

    def names(self, run_id: str = "r1") -> list[str]:
        return [type(event).__name__ for event in self.events(run_id)]

    def all(self, cls: type[E]) -> list[E]:
        return [e.event for e in self.heard if isinstance(e.event, cls)]

    async def hear(self, cls: type[E], run_id: str | None = None, count: int = 1) -> E:
        """The count-th event of a class (about a run)."""

        def found() -> list[E]:
            return [
                e for e in self.all(cls) if run_id is None or getattr(e, "run_id", "") == run_id
            ][count - 1 :]

        return (await wait_until(found))[0]

    def everybody_works(self) -> None:
        """All services answer at once, each run ends with exit code 0."""
        self.automatic = {
            RunPreparing: lambda e: image_ready(e.run_id, build=len(self.all(RunPreparing))),
            PoolTargetSet: scaled,
            RunAssigned: lambda e: started(e.run_id, e.attempt),
            RunStopRequested: lambda e: exited(e.run_id, e.attempt, "canceled", None),
            RunFinalizing: lambda e: archived(e.run_id, e.attempt),
        }


Start = Callable[..., Awaitable[Any]]
