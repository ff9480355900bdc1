"""The whole service on a real broker and a real object store."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from stellwerk.api import ModelView, Page
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.events import (
    Envelope,
    Event,
    ResolvedInput,
    RunCanceled,
    RunCompleted,
    RunFailed,
)
from stellwerk.ids import derived_id
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_kit import pull, topology
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.testing import wait_until
from stellwerk_model_registry import reconcile
from stellwerk_model_registry.app import build
from stellwerk_model_registry.settings import Settings
from stellwerk_model_registry.store import ModelStore
from stellwerk_model_registry.verbs import ModelFiles

Start = Callable[..., Awaitable[Any]]
LINEAGE = {
    "experiment": "digits",
    "env_id": "env1",
    "snapshot": "5" * 64,
    "inputs": {
        "data": ResolvedInput(
            dataset_id="d1",
            name="mnist",
            version=3,
            mode="mount",
            path=None,
            manifest="6" * 64,
            files=4,
            bytes=9,
            single_file=False,
        )
    },
}


@pytest_asyncio.fixture
async def start(
    runtime_factory: Any, s3_settings: dict[str, Any], objects: ObjectStore, tmp_path: Path
) -> Start:
    async def begin(**values: Any) -> Any:
        return await runtime_factory(
            "model-registry",
            Settings,
            build,
            data_dir=tmp_path / "models",
            **{"run_wait_s": 0.2, **s3_settings, **values},
        )

    return begin


@pytest_asyncio.fixture
async def service(start: Start) -> Any:
    return await start()


class Client:
    def __init__(self, bus: Bus, objects: ObjectStore) -> None:
        self.bus, self.objects = bus, objects

    async def call(self, verb: str, reply: Any = ModelView, **body: Any) -> Any:
        return await self.bus.call("model-registry", verb, body, reply)

    async def entry(self, path: str, data: bytes = b"x") -> ManifestEntry:
        digest = await self.objects.put_bytes(data)
        return ManifestEntry(path=path, size=len(data), sha256=digest)

    async def completed(self, run_id: str = "r1", *paths: str) -> None:
        entries = [await self.entry(path, path.encode()) for path in sorted(paths)]
        digest = await self.objects.put_manifest(Manifest(entries=tuple(entries)))
        await self.said(RunCompleted(run_id=run_id, attempt=1, outputs_manifest=digest, **LINEAGE))

    async def said(self, event: Event, sequence: int = 9) -> None:
        time = SystemClock().now()
        await self.bus.publish(Envelope.wrap(event, source="/test", time=time, sequence=sequence))

    async def registered(self, run_id: str) -> Any:
        return await self.call("model-register", name="m", run_id=run_id, path="outputs/m")

    async def last(self, name: str, verb: str) -> Any:
        subject = f"sw.evt.model.{derived_id('model', name)}.{verb}"

        async def find() -> Any:
            info = await self.bus.js.stream_info("SW_EVENTS", subjects_filter=subject)
            return (info.state.subjects or {}).get(subject)

        await wait_until(find)
        message = await self.bus.js.get_last_msg("SW_EVENTS", subject)
        return json.loads(message.data or b"")


@pytest.fixture
def client(bus: Bus, objects: ObjectStore) -> Client:
    return Client(bus, objects)


async def test_register_from_a_run(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/model/a.keras", "outputs/model/v/b", "outputs/log.txt")
    model = await client.call(
        "model-register",
        name="keras-mnist",
        run_id="r1",
        path="./outputs/model",
        tags={"k": "v"},
        properties={"p": "1"},
        description="d",
        framework="Keras",
        framework_version="3",
        datasets={"training": "d1"},
    )
    assert (model.name, model.version, model.path, model.files) == (
        "keras-mnist",
        1,
        "outputs/model",
        2,
    )
    assert (model.tags, model.properties, model.description) == ({"k": "v"}, {"p": "1"}, "d")
    assert (model.framework, model.framework_version) == ("Keras", "3")
    assert model.bytes == len("outputs/model/a.keras") + len("outputs/model/v/b")
    lineage = model.lineage
    assert (lineage.run_id, lineage.experiment, lineage.env_id) == ("r1", "digits", "env1")
    assert (lineage.snapshot, lineage.inputs["data"].version) == ("5" * 64, 3)
    assert lineage.datasets == {"training": "d1"}
    files = await client.call("model-files", ModelFiles, name="keras-mnist")
    assert [file.path for file in files.files] == ["model/a.keras", "model/v/b"]
    assert await client.objects.get_bytes(files.files[0].sha256 or "") == b"outputs/model/a.keras"
    told = await client.last("keras-mnist", "registered")
    assert (told["version"], told["run_id"], told["manifest"]) == (1, "r1", model.manifest)
    assert await client.call("model-get", name="keras-mnist") == model


async def test_the_name_is_the_default_path(service: Any, client: Client) -> None:
    await client.completed("r1", "mnist.keras")
    model = await client.call("model-register", name="mnist.keras", run_id="r1")
    assert (model.path, model.files) == ("mnist.keras", 1)


async def test_a_registration_may_come_before_the_news(
    start: Start, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "WORTH_A_WAIT", 0)  # as if much came all the time
    patient = tuple(replace(spec, linger_s=600.0) for spec in topology.CONSUMERS)
    monkeypatch.setattr(topology, "CONSUMERS", patient)
    await start(run_wait_s=20)
    early = asyncio.gather(
        client.bus.call(
            "model-registry",
            "model-register",
            {"name": "m", "run_id": "r1", "path": "outputs/m"},
            ModelView,
            timeout_s=10,
        ),
        client.bus.call(
            "model-registry",
            "model-register",
            {"name": "n", "run_id": "r1", "path": "outputs/m"},
            ModelView,
            timeout_s=10,
        ),
    )
    await client.completed("r1", "outputs/m")
    assert [model.version for model in await early] == [1, 1]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("outputs/mod", "model.path_not_found"),
        ("/outputs/model", "model.path"),
        ("../model", "model.path"),
    ],
)
async def test_wrong_paths(service: Any, client: Client, path: str, code: str) -> None:
    await client.completed("r1", "outputs/model/a")
    with pytest.raises(UserError) as caught:
        await client.call("model-register", name="m", run_id="r1", path=path)
    assert (caught.value.code, caught.value.field) == (code, "path")
    with pytest.raises(NotFoundError):
        await client.call("model-get", name="m")


async def test_runs_that_did_not_complete(service: Any, client: Client) -> None:
    with pytest.raises(NotFoundError) as unknown:
        await client.call("model-register", name="m", run_id="r0", path="outputs/m")
    assert unknown.value.code == "run.not_found"
    base: dict[str, Any] = {"attempt": 1, **LINEAGE}
    await client.said(RunFailed(run_id="r1", code="exit", message="3", **base))
    await client.said(RunCanceled(run_id="r2", **base))
    for run_id in ("r1", "r2"):

        async def refused(run_id: str = run_id) -> Any:
            try:
                await client.call("model-register", name="m", run_id=run_id, path="outputs/m")
            except NotFoundError:
                return None
            except ConflictError as error:
                return error.code

        assert await wait_until(refused) == "run.not_succeeded"
    await client.said(RunCompleted(run_id="r3", **base))
    with pytest.raises(NotFoundError) as empty:
        await client.bus.call(
            "model-registry",
            "model-register",
            {"name": "m", "run_id": "r3", "path": "outputs/m"},
            ModelView,
        )
    assert (empty.value.code, "no files" in empty.value.message) == ("model.path_not_found", True)


async def test_register_uploaded_files(service: Any, client: Client, tmp_path: Path) -> None:
    pickle = f"cos\nsystem\n(S'touch {tmp_path}/ran'\ntR.".encode()
    manifest = Manifest(entries=(await client.entry("model/evil.pkl", pickle),))
    model = await client.call(
        "model-register", name="up", manifest=manifest.model_dump(), path="./local/model"
    )
    assert (model.files, model.bytes, model.path) == (1, len(pickle), "./local/model")
    assert model.lineage.run_id is None
    assert not (tmp_path / "ran").exists()
    entry = (await client.entry("a")).model_dump()
    for change, code in [({"sha256": "0" * 64}, "blob.missing"), ({"size": 7}, "blob.size")]:
        with pytest.raises(UserError) as caught:
            await client.call("model-register", name="up", manifest={"entries": [entry | change]})
        assert caught.value.code == code
    with pytest.raises(UserError) as both:
        await client.call("model-register", name="up")
    assert both.value.code == "model.source"


async def test_versions_are_never_used_again(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/m")
    for expected in (1, 2, 3):
        made = await client.call("model-register", name="m", run_id="r1", path="outputs/m")
        assert made.version == expected
    gone = await client.call("model-delete", name="m", version=3)
    assert gone.version == 3
    assert (await client.last("m", "deleted"))["version"] == 3
    assert (await client.call("model-get", name="m")).version == 2
    for version in (1, 2):
        await client.call("model-delete", name="m", version=version)
    with pytest.raises(NotFoundError):
        await client.call("model-get", name="m")
    assert (
        await client.call("model-register", name="m", run_id="r1", path="outputs/m")
    ).version == 4
    with pytest.raises(NotFoundError) as caught:
        await client.call("model-get", name="m", version=1)
    assert caught.value.code == "model.version_not_found"
    with pytest.raises(NotFoundError):
        await client.call("model-delete", name="m", version=1)


async def test_registrations_at_once_get_their_own_versions(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/m")
    await client.call("model-register", name="m", run_id="r1", path="outputs/m")
    made = await asyncio.gather(
        *(client.call("model-register", name="m", run_id="r1", path="outputs/m") for _ in range(10))
    )
    assert sorted(model.version for model in made) == list(range(2, 12))


async def test_lists(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/m")
    await client.completed("r2", "outputs/m")
    for name, run_id, tags in [
        ("b", "r1", {"stage": "test"}),
        ("a", "r1", {}),
        ("b", "r2", {"stage": "prod", "x": None}),
    ]:
        await client.call("model-register", name=name, run_id=run_id, path="outputs/m", tags=tags)

    async def listed(**query: Any) -> list[tuple[str, int]]:
        page = await client.call("model-list", Page[ModelView], **query)
        return [(model.name, model.version) for model in page.items]

    assert await listed() == [("a", 1), ("b", 2), ("b", 1)]
    assert await listed(name="b") == [("b", 2), ("b", 1)]
    assert await listed(run_id="r1") == [("a", 1), ("b", 1)]
    assert await listed(tag="stage") == [("b", 2), ("b", 1)]
    assert await listed(tag="stage=prod") == [("b", 2)]
    assert await listed(tag="' or 1=1") == []
    seen, cursor = [], None
    while True:
        page = await client.call("model-list", Page[ModelView], limit=1, cursor=cursor)
        seen += [(model.name, model.version) for model in page.items]
        if (cursor := page.next_cursor) is None:
            break
    assert seen == [("a", 1), ("b", 2), ("b", 1)]
    for bad in ({"limit": 0}, {"limit": 10**9}, {"cursor": "x"}, {"cursor": "b:-1"}):
        with pytest.raises(UserError):
            await listed(**bad)


async def test_patch(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/m")
    await client.call(
        "model-register",
        name="m",
        run_id="r1",
        path="outputs/m",
        tags={"a": "1", "b": "1"},
        properties={"p": "1"},
    )
    patch = {
        "description": "new",
        "tags": {"a": "2"},
        "remove_tags": ["b"],
        "properties": {"q": "1"},
    }
    model = await client.call("model-patch", name="m", version=1, patch=patch)
    assert (model.description, model.tags, model.properties) == (
        "new",
        {"a": "2"},
        {"p": "1", "q": "1"},
    )
    with pytest.raises(ConflictError) as caught:
        await client.call("model-patch", name="m", version=1, patch={"properties": {"p": "2"}})
    assert caught.value.code == "model.property_immutable"
    assert await client.call("model-get", name="m") == model
    with pytest.raises(NotFoundError) as unknown:
        await client.call("model-get", name="nn")
    assert "'m'" not in unknown.value.message


async def test_everything_outlives_a_restart(start: Start, client: Client) -> None:
    service = await start()
    await client.completed("r1", "outputs/m")
    model = await client.call("model-register", name="m", run_id="r1", path="outputs/m")
    await service.stop()
    await client.completed("r2", "outputs/m")
    await start(run_wait_s=4)
    assert await client.call("model-get", name="m") == model
    again = await client.call("model-register", name="m", run_id="r2", path="outputs/m")
    assert again.version == 2


async def test_a_later_fact_about_an_ended_run_changes_nothing(
    service: Any, client: Client
) -> None:
    await client.completed("r1", "outputs/m")
    await client.registered("r1")
    late = RunFailed(run_id="r1", code="x", message="late", attempt=1, **LINEAGE)
    await client.said(late, sequence=10)

    async def handled() -> bool:
        info = await client.bus.js.consumer_info("SW_EVENTS", "model-registry-runs")
        return info.num_ack_pending == 0 and info.num_pending == 0

    await wait_until(handled)
    assert (await client.registered("r1")).version == 2


async def test_unsuccessful_runs_are_forgotten(service: Any, client: Client) -> None:
    base: dict[str, Any] = {"attempt": 1, **LINEAGE}
    await client.completed("good", "outputs/m")
    await client.said(RunFailed(run_id="bad", code="x", message="", **base))
    store = ModelStore(service._databases[0][0])

    async def both() -> bool:
        return bool(await store.ended_run("bad") and await store.ended_run("good"))

    await wait_until(both)
    await reconcile.sweep(store, service.clock, 1)
    assert await store.ended_run("bad") is not None

    class Later:
        def now(self) -> Any:
            return service.clock.now() + timedelta(days=2)

        def monotonic(self) -> float:
            return 0.0

    await reconcile.sweep(store, Later(), 1)
    assert await store.ended_run("bad") is None
    assert await store.ended_run("good") is not None


async def test_a_repeated_registration_is_one_version(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/m")
    asked = {"name": "m", "run_id": "r1", "path": "outputs/m", "key": "k1"}
    both = await asyncio.gather(*(client.call("model-register", **asked) for _ in range(4)))
    assert {view.version for view in both} == {1}
    assert (await client.call("model-register", **asked)) == both[0]
    given = {"request": {k: v for k, v in asked.items() if k != "key"}, "key": "k1"}
    entry = (await client.entry("outputs/m")).model_dump()
    more = {"files": {"entries": [entry]}, "lineage": {}}
    assert (await client.call("model-register-given", **given, **more)) == both[0]
    with pytest.raises(ConflictError) as caught:
        await client.call("model-register", **{**asked, "tags": {"other": "1"}})
    assert caught.value.code == "idempotency.conflict"
    assert (await client.call("model-register", **{**asked, "key": "k2"})).version == 2
    assert (await client.registered("r1")).version == 3


async def test_keys_are_forgotten_after_a_week(service: Any, client: Client) -> None:
    await client.completed("r1", "outputs/m")
    asked = {"name": "m", "run_id": "r1", "path": "outputs/m", "key": "k1"}
    assert (await client.call("model-register", **asked)).version == 1
    store = ModelStore(service._databases[0][0])
    await store.forget_registrations(SystemClock().now() - timedelta(days=1))
    assert (await client.call("model-register", **asked)).version == 1
    await store.forget_registrations(SystemClock().now() + timedelta(seconds=1))
    assert (await client.call("model-register", **asked)).version == 2
