"""Assignments for a real executor on a real broker, and what it says about them."""

import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from pydantic import BaseModel

from stellwerk.events import Envelope, Event, ImageInfo, RunAssigned, decode
from stellwerk.runspec import RunSpec
from stellwerk_gpu_executor.app import build
from stellwerk_gpu_executor.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.service import Runtime


class Anything(BaseModel):
    model_config = {"extra": "allow"}


async def scheduler(runtime: Runtime[Any]) -> None:
    """Says yes to everything."""

    async def confirm(request: Any) -> BaseModel:
        return Anything.model_validate({"valid": True})

    async def renew(request: Any) -> BaseModel:
        leases = [{**lease, "valid": True, "lease_s": 4.0} for lease in request.leases]
        return Anything.model_validate({"leases": leases})

    runtime.rpc("attempt-confirm", Anything, confirm)
    runtime.rpc("lease-renew", Anything, renew)


def assigned(run_id: str, script: str, **changes: Any) -> RunAssigned:
    spec = {
        "source": {"inline": {"main.py": script}},
        "script": "main.py",
        **changes.pop("spec", {}),
    }
    values = {
        "run_id": run_id,
        "attempt": 1,
        "node_id": "cpu-0-local",
        "executor_id": "local",
        "pool": "cpu",
        "lease_s": 4.0,
        "experiment": "test",
        "workspace": "default",
        "spec": RunSpec.model_validate(spec),
        "image": ImageInfo(env_id="none", interpreter=sys.executable),
        "inputs": {},
        **changes,
    }
    return RunAssigned(**values)


async def publish(bus: Bus, event: Event, sequence: int | None = None) -> None:
    await bus.publish(
        Envelope.wrap(event, source="/test", time=SystemClock().now(), sequence=sequence)
    )


class Watcher:
    """Collects events, log bytes and records from the bus; ``logs``: of each file by name."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.log = b""
        self.logs: dict[str, bytes] = {}
        self.records: list[Any] = []

    async def start(self, bus: Bus) -> None:
        async def on_event(message: Any) -> None:
            self.events.append(decode(message.subject, message.headers, message.data).event)

        async def on_log(message: Any) -> None:
            offset = int(message.headers["Sw-Offset"])
            self.log = self.log[:offset] + message.data + self.log[offset + len(message.data) :]

        async def on_records(message: Any) -> None:
            batch = Anything.model_validate_json(message.data).model_dump()
            self.records[batch["first"] :] = batch["records"]

        async def on_file(message: Any) -> None:
            name = unquote(message.headers["Sw-Path"])
            self.logs[name] = self.logs.get(name, b"") + message.data

        await bus.client.subscribe("sw.evt.>", cb=on_event)
        await bus.client.subscribe("sw.log.*.*.*", cb=on_file)
        await bus.client.subscribe("sw.log.*.*.std", cb=on_log)
        await bus.client.subscribe("sw.metric.>", cb=on_records)
        await bus.flush()

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def start(
    factory: Any, s3_settings: dict[str, Any], tmp_path: Path, **more: Any
) -> Runtime[Any]:
    return await factory(
        "gpu-executor", Settings, build, data_dir=tmp_path / "ex", executor_dir=tmp_path / "executor",
        environments_dir=tmp_path / "envs", **{**s3_settings, **more},
    )  # fmt: skip
