"""Requests to the service as the gateway makes them, and its answers to runs."""

from typing import Any

from stellwerk.api import DatasetView
from stellwerk.events import DatasetFailed, DatasetReady, Envelope, RunPreparing, decode
from stellwerk.runspec import DatasetInput, EnvironmentReference
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.testing import wait_until


class Client:
    """Requests as the gateway makes them."""

    def __init__(self, bus: Bus, objects: ObjectStore) -> None:
        self.bus, self.objects = bus, objects

    async def call(self, verb: str, reply: Any, **body: Any) -> Any:
        return await self.bus.call("dataset", verb, body, reply)

    async def blob(self, path: str, data: bytes) -> dict[str, Any]:
        digest = await self.objects.put_bytes(data)
        return {"path": path, "size": len(data), "sha256": digest}

    async def create(self, **source: Any) -> Any:
        return await self.call("dataset-create", DatasetView, source=source)

    async def make(self, **contents: bytes) -> Any:
        entries = [await self.blob(f"d/{name}", data) for name, data in contents.items()]
        return await self.create(kind="files", entries=entries)

    async def register(self, dataset_id: str, name: str, **more: Any) -> Any:
        request = {"name": name, **more}
        return await self.call(
            "dataset-register", DatasetView, dataset_id=dataset_id, request=request
        )

    async def prepare(self, run_id: str, message_id: str | None = None, **inputs: Any) -> None:
        event = RunPreparing(
            run_id=run_id,
            experiment="e",
            environment=EnvironmentReference(name="env"),
            inputs={name: DatasetInput.model_validate(text) for name, text in inputs.items()},
        )
        envelope = Envelope.wrap(event, source="/test", time=SystemClock().now(), sequence=2)
        headers = envelope.headers()
        headers["Nats-Msg-Id"] = message_id or headers["Nats-Msg-Id"]
        await self.bus.publish_raw(event.subject(), event.data(), headers)

    async def answer(self, run_id: str, verb: str) -> Any:
        subject = f"sw.evt.dataset.{run_id}.{verb}"

        async def find() -> Any:
            info = await self.bus.js.stream_info("SW_EVENTS", subjects_filter=subject)
            return (info.state.subjects or {}).get(subject)

        assert await wait_until(find) == 1
        message = await self.bus.js.get_last_msg("SW_EVENTS", subject)
        return decode(subject, message.headers, message.data).event

    async def ready(self, run_id: str) -> DatasetReady:
        event = await self.answer(run_id, "ready")
        assert isinstance(event, DatasetReady)
        return event

    async def failed(self, run_id: str) -> DatasetFailed:
        event = await self.answer(run_id, "failed")
        assert isinstance(event, DatasetFailed)
        return event
