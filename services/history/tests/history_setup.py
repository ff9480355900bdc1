"""What the tests of this folder share: a run as the other services would publish it."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from stellwerk import events as e
from stellwerk import ids, subjects
from stellwerk.api import RunView
from stellwerk.errors import NotFoundError, ServiceUnavailableError
from stellwerk.events.attempt import ExitSummary, LogClosure
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk.runspec import EnvironmentReference, InlineSource, RunSpec
from stellwerk_history.settings import Settings
from stellwerk_history.verbs import EventsReply
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.rpc import RawReply
from stellwerk_kit.service import Runtime

START = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
V = TypeVar("V", bound=BaseModel)
Start = Callable[..., Awaitable[Runtime[Settings]]]


def spec(**values: Any) -> RunSpec:
    return RunSpec(
        source=InlineSource(inline={"train.py": "print(1)"}), script="train.py", **values
    )


def image() -> e.ImageInfo:
    return e.ImageInfo(env_id="e" * 32, python="3.11", warnings=("python 3.6 became 3.11",))


@dataclass
class Sim:
    """The other services, as far as history can tell: publishes what they would."""

    bus: Bus
    objects: ObjectStore
    now: datetime = START
    sequences: dict[str, int] = field(default_factory=dict)

    def wrap(self, event: e.Event, *, passed_s: float = 1.0) -> e.Envelope:
        self.now += timedelta(seconds=passed_s)
        number = None
        if event.aggregate == "run":
            number = self.sequences[event.aggregate_id] = (
                self.sequences.get(event.aggregate_id, 0) + 1
            )
        return e.Envelope.wrap(event, source="/test", time=self.now, sequence=number)

    async def say(self, *events: e.Event, passed_s: float = 1.0) -> None:
        for event in events:
            await self.bus.publish(self.wrap(event, passed_s=passed_s))

    async def submit(
        self, run_id: str | None = None, experiment: str = "mnist", **values: Any
    ) -> str:
        run_id = run_id or ids.new_id()
        await self.say(e.RunSubmitted(run_id=run_id, experiment=experiment, spec=spec(**values)))
        return run_id

    async def until_running(self, run_id: str, attempt: int = 1) -> None:
        """From preparing to running, one second a step."""
        if attempt == 1:
            await self.say(preparing(run_id))
        await self.say(queued(run_id), *placed(run_id, attempt))

    async def write(self, owner: str, data: bytes, *, offset: int = 0, attempt: int = 1,
                    stream: str = "std", path: str | None = None, again: str = "", **headers: str) -> None:  # fmt: skip
        """One chunk of a log."""
        await self.bus.publish_raw(
            subjects.log(owner, attempt, stream),
            data,
            {
                "Nats-Msg-Id": f"log/{owner}/{attempt}/{stream}/{offset}-{len(data)}{again}",
                "Sw-Offset": str(offset),
                "Sw-Path": quote(path or "user_logs/std_log.txt"),
                **headers,
            },
        )

    async def log(
        self, run_id: str, first: int, *records: dict[str, Any], attempt: int = 1
    ) -> None:
        """One batch of records."""
        await self.bus.publish_raw(
            subjects.metric(run_id, attempt),
            json.dumps({"first": first, "records": records}).encode(),
            {"Nats-Msg-Id": f"metric/{run_id}/{attempt}/{first}-{len(records)}"},
        )

    async def store(self, files: dict[str, bytes]) -> str:
        """Outputs in the object store; returns their manifest's digest."""
        entries = [
            ManifestEntry(path=path, size=len(data), sha256=await self.objects.put_bytes(data))
            for path, data in sorted(files.items())
        ]
        return await self.objects.put_manifest(Manifest(entries=tuple(entries)))

    async def end(self, run_id: str, log: bytes, *, attempt: int = 1, outcome: str = "Completed",
                  logs: dict[str, bytes] | None = None, **values: Any) -> ExitSummary:  # fmt: skip
        """The attempt's exit and RunFinalizing."""
        closures = [closure("std", "user_logs/std_log.txt", log)]
        closures += [closure(stream(path), path, data) for path, data in (logs or {}).items()]
        summary = ExitSummary(reason="exited", exit_code=0, logs=tuple(closures), **values)
        await self.say(
            e.RunFinalizing(run_id=run_id, attempt=attempt, outcome=outcome, exit=summary)
        )
        return summary

    async def ask(self, verb: str, reply: type[V], **fields: Any) -> V:
        return await self.bus.call("history", verb, fields, reply, 25.0)

    async def run(self, run_id: str, wait_s: float = 10.0) -> RunView:
        return await self.ask("run-get", RunView, run_id=run_id, wait_s=wait_s)

    async def completed(self, run_id: str) -> bool:
        """Whether history is there and has the run as completed."""
        try:
            return (await self.run(run_id, wait_s=5)).status == "Completed"
        except (NotFoundError, ServiceUnavailableError):
            return False

    async def events(self, run_id: str, until: str) -> list[Any]:
        """The status stream up to the first event of a type, by long polls."""
        found: list[Any] = []
        while not any(event.type == until for event in found):
            after = found[-1].sequence if found else 0
            reply = await self.ask("run-events", EventsReply, run_id=run_id, after=after, wait_s=15)
            assert reply.events, f"no {until} after {[event.type for event in found]}"
            found += reply.events
        return found

    async def read(
        self, run_id: str, path: str = "user_logs/std_log.txt", **fields: Any
    ) -> RawReply:
        return await self.bus.call_raw("history", "log-read", {"run_id": run_id, "path": path, **fields}, 25.0)  # fmt: skip

    async def follow(self, run_id: str, size: int, path: str = "user_logs/std_log.txt") -> bytes:
        """A log from its beginning until it has ``size`` bytes."""
        data = b""
        while len(data) < size:
            reply = await self.read(run_id, path, offset=len(data), wait_s=15)
            assert reply.body, f"only {len(data)} of {size} bytes"
            data += reply.body
        return data


def preparing(run_id: str) -> e.RunPreparing:
    return e.RunPreparing(
        run_id=run_id, experiment="mnist", environment=EnvironmentReference(name="env"), inputs={}
    )


def queued(run_id: str) -> e.RunQueued:
    return e.RunQueued(
        run_id=run_id, pool="local", reason="free", message="A slot is free.", position=1
    )


def placed(run_id: str, attempt: int) -> tuple[e.Event, ...]:
    node = {"run_id": run_id, "attempt": attempt, "node_id": "local-1-x"}
    assigned = e.RunAssigned(
        **node, executor_id="x", pool="local", lease_s=120, experiment="mnist", workspace="default",
        spec=spec(), image=image(), inputs={},
    )  # fmt: skip
    return assigned, e.RunStarted(**node)


def completed(run_id: str, **values: Any) -> e.RunCompleted:
    return e.RunCompleted(run_id=run_id, experiment="mnist", attempt=1, **values)


def closure(name: str, path: str, data: bytes) -> LogClosure:
    return LogClosure(
        stream=name, path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest()
    )


def stream(path: str) -> str:
    return f"f-{hashlib.sha256(path.encode()).hexdigest()[:12]}"
