"""The whole service on a real broker, a real object store and a real web server."""

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from dataset_client import Client
from prometheus_client import REGISTRY

from stellwerk.api import (
    DatasetFileView,
    DatasetView,
    DatastoreUploadView,
    Page,
)
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.events import DatasetReady
from stellwerk_dataset.app import build
from stellwerk_dataset.settings import Settings
from stellwerk_dataset.verbs import DatasetUnregistered
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.testing import wait_until

Start = Callable[[], Awaitable[Any]]


@pytest_asyncio.fixture
async def start(
    runtime_factory: Any,
    s3_settings: dict[str, Any],
    objects: ObjectStore,
    web: Any,
    tmp_path: Path,
) -> Start:
    """Starts the service, again and again on the same folder."""

    async def begin() -> Any:
        return await runtime_factory(
            "dataset",
            Settings,
            build,
            data_dir=tmp_path / "dataset",
            egress_allow=[web.authority],
            egress_idle_s=5,
            **s3_settings,
        )

    return begin


@pytest_asyncio.fixture
async def service(start: Start) -> Any:
    return await start()


async def test_create_is_idempotent(service: Any, client: Client) -> None:
    first = await client.make(a=b"1", b=b"22")
    assert (first.files, first.bytes, first.name, first.created) == (2, 3, None, True)
    again = await client.make(a=b"1", b=b"22")
    assert again == first.model_copy(update={"created": False})


async def test_blobs_must_be_there(service: Any, client: Client) -> None:
    entry = {"path": "a", "size": 1, "sha256": "0" * 64}
    with pytest.raises(UserError) as caught:
        await client.create(kind="files", entries=[entry])
    assert caught.value.code == "blob.missing"
    entry = {**await client.blob("a", b"1"), "size": 9}
    with pytest.raises(UserError) as caught:
        await client.create(kind="files", entries=[entry])
    assert caught.value.code == "blob.size"


async def test_versions(service: Any, client: Client) -> None:
    one, two = await client.make(a=b"1"), await client.make(a=b"2")
    first = await client.register(one.dataset_id, "iris data", tags={"k": "v"}, description="d")
    assert (first.name, first.version, first.created, first.tags) == (
        "iris data",
        1,
        True,
        {"k": "v"},
    )
    same = await client.register(one.dataset_id, "iris data")
    assert (same.version, same.created, same.tags, same.description) == (1, False, {"k": "v"}, "d")
    said = {"tags": {"k": "w", "new": None}, "description": "e"}
    again = await client.register(one.dataset_id, "iris data", **said)
    assert (again.version, again.tags) == (1, {"k": "w", "new": None})
    assert again.description == "e"
    with pytest.raises(ConflictError) as caught:
        await client.register(two.dataset_id, "iris data")
    assert caught.value.code == "dataset.exists"
    assert "create_new_version" in caught.value.message
    second = await client.register(two.dataset_id, "iris data", create_new_version=True)
    assert second.version == 2
    back = await client.register(one.dataset_id, "iris data", create_new_version=True)
    assert back.version == 3
    got = await client.call("dataset-get", DatasetView, name="iris data", version=2)
    assert got == second
    latest = await client.call("dataset-get", DatasetView, name="iris data")
    assert latest.version == 3
    message = await client.bus.js.get_last_msg(
        "SW_EVENTS", f"sw.evt.dataset.{two.dataset_id}.registered"
    )
    assert json.loads(message.data or b"")["version"] == 2


async def test_lists_and_unregister(service: Any, client: Client) -> None:
    one, two = await client.make(a=b"1"), await client.make(a=b"2")
    for name in ("c", "a", "b"):
        await client.register(one.dataset_id, name)
        await client.register(two.dataset_id, name, create_new_version=True)
    first = await client.call("dataset-list", Page[DatasetView], limit=2)
    assert [(item.name, item.version) for item in first.items] == [("a", 2), ("b", 2)]
    rest = await client.call("dataset-list", Page[DatasetView], limit=2, cursor=first.next_cursor)
    assert ([item.name for item in rest.items], rest.next_cursor) == (["c"], None)
    page = await client.call("dataset-list", Page[DatasetView], name="a", limit=1)
    assert page.items[0].version == 2
    page = await client.call(
        "dataset-list", Page[DatasetView], name="a", limit=1, cursor=page.next_cursor
    )
    assert (page.items[0].version, page.next_cursor) == (1, None)
    gone = await client.call("dataset-unregister", DatasetUnregistered, name="a")
    assert gone.versions == 2
    with pytest.raises(NotFoundError):
        await client.call("dataset-get", DatasetView, name="a")
    assert (await client.register(one.dataset_id, "a")).version == 3


async def test_unknown_names(service: Any, client: Client) -> None:
    one = await client.make(a=b"1")
    await client.register(one.dataset_id, "mnist-dataset")
    for body, code in [
        ({"name": "mnist-datset"}, "dataset.not_found"),
        ({"name": "mnist-dataset", "version": 7}, "dataset.version_not_found"),
        ({"dataset_id": "f" * 32}, "dataset.not_found"),
    ]:
        with pytest.raises(NotFoundError) as caught:
            await client.call("dataset-get", DatasetView, **body)
        assert caught.value.code == code
        assert (
            "7" in caught.value.message
            or "id" in caught.value.message
            or ("'mnist-dataset'" in caught.value.message)
        )
    with pytest.raises(NotFoundError):
        await client.call("dataset-unregister", DatasetUnregistered, name="x")
    with pytest.raises(UserError):
        await client.call("dataset-get", DatasetView)
    with pytest.raises(UserError):
        await client.call("dataset-list", Page[DatasetView], limit=0)


async def test_datastore_uploads_and_pinned_paths(service: Any, client: Client) -> None:
    async def upload(overwrite: bool = False, **contents: bytes) -> Any:
        entries = [await client.blob(f"mnist/{name}", data) for name, data in contents.items()]
        request = {"entries": entries, "overwrite": overwrite}
        return await client.call(
            "datastore-upload", DatastoreUploadView, name="workspaceblobstore", request=request
        )

    assert await upload(a=b"1", b=b"2") == DatastoreUploadView(stored=2, unchanged=0)
    assert await upload(a=b"1", c=b"3") == DatastoreUploadView(stored=1, unchanged=1)
    with pytest.raises(ConflictError) as caught:
        await upload(a=b"changed", d=b"4")
    assert caught.value.code == "datastore.path_exists"
    page = await client.call("datastore-files", Page[DatasetFileView], limit=2)
    assert [file.path for file in page.items] == ["mnist/a", "mnist/b"]
    page = await client.call(
        "datastore-files", Page[DatasetFileView], prefix="mnist/", cursor=page.next_cursor
    )
    assert ([file.path for file in page.items], page.next_cursor) == (["mnist/c"], None)

    paths = [{"datastore": "workspaceblobstore", "path": "mnist/"}]
    before = await client.create(kind="datastore", paths=paths)
    await upload(overwrite=True, a=b"changed")
    after = await client.create(kind="datastore", paths=paths)
    assert before.dataset_id != after.dataset_id
    files = await client.call("dataset-files", Page[DatasetFileView], dataset_id=before.dataset_id)
    assert [file.path for file in files.items] == ["a", "b", "c"]
    assert files.items[0].sha256 == hashlib.sha256(b"1").hexdigest()
    for bad, code in [("minst/", "datastore.path_not_found"), ("../x", "dataset.path")]:
        with pytest.raises(UserError) as error:
            await client.create(kind="datastore", paths=[{"path": bad}])
        assert error.value.code == code
    with pytest.raises(NotFoundError) as missing:
        await client.create(kind="datastore", paths=[{"datastore": "nope", "path": "x"}])
    assert missing.value.code == "datastore.not_found"


async def test_files_come_in_pages(service: Any, client: Client) -> None:
    made = await client.make(**{f"f{n:02}": b"x" for n in range(25)})
    seen: list[str] = []
    cursor = None
    while True:
        page = await client.call(
            "dataset-files",
            Page[DatasetFileView],
            dataset_id=made.dataset_id,
            limit=10,
            cursor=cursor,
        )
        seen += [file.path for file in page.items]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert seen == [f"f{n:02}" for n in range(25)]


async def test_a_run_gets_pinned_inputs(service: Any, client: Client) -> None:
    one, two = await client.make(a=b"1", b=b"2"), await client.make(a=b"1")
    await client.register(one.dataset_id, "data")
    await client.register(two.dataset_id, "data", create_new_version=True)
    await client.prepare(
        "run-1",
        latest={"dataset": "data"},
        first={"dataset": "data", "version": 1, "mode": "download", "path": "in"},
        by_id={"dataset": one.dataset_id, "mode": "direct"},
    )
    ready = await client.ready("run-1")
    latest, first, by_id = (ready.inputs[name] for name in ("latest", "first", "by_id"))
    assert (latest.version, latest.single_file, latest.files, latest.bytes) == (2, True, 1, 1)
    assert (first.version, first.mode, first.path, first.dataset_id) == (
        1,
        "download",
        "in",
        one.dataset_id,
    )
    assert (by_id.name, by_id.mode) == (None, "direct")
    manifest = await client.objects.get_manifest(first.manifest)
    assert [entry.path for entry in manifest.entries] == ["a", "b"]


@pytest.mark.parametrize(
    ("wanted", "code", "hint"),
    [
        ({"dataset": "dta"}, "dataset.not_found", "'data'"),
        ({"dataset": "data", "version": 2}, "dataset.version_not_found", "latest is 1"),
    ],
)
async def test_a_run_with_an_unknown_input_fails(
    service: Any, client: Client, wanted: dict[str, Any], code: str, hint: str
) -> None:
    one = await client.make(a=b"1")
    await client.register(one.dataset_id, "data")
    await client.prepare("run-1", good={"dataset": "data"}, bad=wanted)
    failed = await client.failed("run-1")
    assert (failed.input, failed.code) == ("bad", code)
    assert hint in failed.message


async def test_repeats_and_runs_without_inputs_say_nothing_more(
    service: Any, client: Client
) -> None:
    def said() -> float:
        labels = {"type": DatasetReady.type_name()}
        return REGISTRY.get_sample_value("stellwerk_bus_published_total", labels) or 0

    async def handled() -> bool:
        info = await client.bus.js.consumer_info("SW_EVENTS", "dataset-runs")
        return info.num_ack_pending == 0 and info.num_pending == 0

    before = said()
    one = await client.make(a=b"1")
    await client.prepare("run-0")
    await client.prepare("run-1", x={"dataset": one.dataset_id})
    await client.ready("run-1")
    await client.prepare("run-1", "past-the-window", x={"dataset": one.dataset_id})
    await wait_until(handled)
    await client.prepare("run-2", x={"dataset": one.dataset_id})
    await client.ready("run-2")
    await service.stop()
    assert said() == before + 2


async def test_web_files_are_read_once_for_all_who_wait(
    service: Any, client: Client, web: Any
) -> None:
    web.pages["/b"] = web.page(body=b"bb")
    made = await client.create(kind="urls", urls=[web.held("/a", b"0123456789"), web.url("/b")])
    assert (made.files, made.bytes) == (2, None)
    assert web.requests == []
    await client.prepare("run-0", x={"dataset": made.dataset_id})
    await wait_until(lambda: web.count("/a") and web.count("/b"))
    for number in (1, 2):
        await client.prepare(f"run-{number}", x={"dataset": made.dataset_id})
    query = {"dataset_id": made.dataset_id, "wait_s": 0.05}
    await client.call("dataset-files", Page[DatasetFileView], **query)
    web.release.set()
    for number in range(3):
        value = (await client.ready(f"run-{number}")).inputs["x"]
        assert (value.files, value.bytes, value.single_file) == (2, 12, False)
    assert (web.count("/a"), web.count("/b")) == (1, 1)
    manifest = await client.objects.get_manifest(value.manifest)
    host = f"127.0.0.1_{web.port}"
    assert [entry.path for entry in manifest.entries] == [f"{host}/a", f"{host}/b"]
    assert await client.objects.get_bytes(manifest.entries[0].sha256) == b"0123456789"

    web.pages["/b"] = web.page(body=b"changed")
    await client.prepare("run-9", x={"dataset": made.dataset_id})
    assert (await client.ready("run-9")).inputs["x"].manifest == value.manifest
    got = await client.call("dataset-get", DatasetView, dataset_id=made.dataset_id)
    assert got.bytes == 12
    assert list((service.settings.data_dir / "fetch").iterdir()) == []


async def test_listing_files_reads_them(service: Any, client: Client, web: Any) -> None:
    web.pages["/a"] = web.page(body=b"aa")
    made = await client.create(kind="urls", urls=[web.url("/a")])
    query = {"dataset_id": made.dataset_id}
    page = await client.call("dataset-files", Page[DatasetFileView], **query, fetch=False)
    assert (page.items[0].sha256, page.items[0].url) == (None, web.url("/a"))
    page = await client.call("dataset-files", Page[DatasetFileView], **query)
    assert (page.items[0].size, page.items[0].sha256) == (2, hashlib.sha256(b"aa").hexdigest())
    slow = await client.create(kind="urls", urls=[web.held("/slow", b"0123456789")])
    query = {"dataset_id": slow.dataset_id}
    page = await client.call("dataset-files", Page[DatasetFileView], **query, wait_s=0.05)
    assert page.items[0].sha256 is None
    web.release.set()
    page = await client.call("dataset-files", Page[DatasetFileView], **query)
    assert page.items[0].size == 10
    gone = await client.create(kind="urls", urls=[web.url("/gone")])
    with pytest.raises(UserError) as caught:
        await client.call("dataset-files", Page[DatasetFileView], dataset_id=gone.dataset_id)
    assert caught.value.code == "dataset.fetch_failed"
    assert "404" in caught.value.message


async def test_transient_failures_are_tried_again(service: Any, client: Client, web: Any) -> None:
    async def flaky(writer: Any) -> None:
        good = web.count("/flaky") > 2
        writer.write(web.page(200 if good else 503, body=b"ok"))

    web.pages["/flaky"] = flaky
    web.pages["/broken"] = web.page(500)
    good = await client.create(kind="urls", urls=[web.url("/flaky")])
    bad = await client.create(kind="urls", urls=[web.url("/broken")])
    await client.prepare("run-1", x={"dataset": good.dataset_id})
    await client.ready("run-1")
    await client.prepare("run-2", x={"dataset": good.dataset_id}, y={"dataset": bad.dataset_id})
    failed = await client.failed("run-2")
    assert (failed.input, failed.code) == ("y", "dataset.fetch_failed")
    assert (web.count("/flaky"), web.count("/broken")) == (3, 3)
    web.pages["/broken"] = web.page(body=b"mended")
    await client.prepare("run-3", y={"dataset": bad.dataset_id})
    assert (await client.ready("run-3")).inputs["y"].bytes == 6


async def test_forbidden_addresses(service: Any, client: Client, web: Any) -> None:
    for url, code in [
        ("http://169.254.169.254/latest/", "url.blocked_address"),
        ("http://[::ffff:127.0.0.1]/", "url.blocked_address"),
        ("file:///etc/passwd", "url.scheme"),
    ]:
        with pytest.raises(UserError) as caught:
            await client.create(kind="urls", urls=[url])
        assert caught.value.code == code
        assert caught.value.field == "source.urls"
    redirect = await client.create(
        kind="urls", urls=[web.redirect("/r", "http://169.254.169.254/latest/")]
    )
    await client.prepare("run-1", x={"dataset": redirect.dataset_id})
    failed = await client.failed("run-1")
    assert (failed.code, failed.input) == ("url.blocked_redirect", "x")
    named = await client.create(kind="urls", urls=["http://localhost/"])
    await client.prepare("run-2", x={"dataset": named.dataset_id})
    assert (await client.failed("run-2")).code == "url.blocked_address"


async def test_a_restart_in_the_middle_of_a_read(start: Start, client: Client, web: Any) -> None:
    service = await start()
    made = await client.create(kind="urls", urls=[web.held("/a", b"0123456789")])
    await client.prepare("run-1", x={"dataset": made.dataset_id})
    await wait_until(lambda: web.count("/a") == 1)
    await service.stop()
    web.release.set()
    await start()
    assert (await client.ready("run-1")).inputs["x"].bytes == 10
    assert web.count("/a") == 2


@pytest.mark.parametrize(
    ("point", "reads"), [("dataset.before_pin", 2), ("dataset.before_finish", 1)]
)
async def test_killed_at_the_worst_moment(
    bus: Bus,
    nats_server: Any,
    client: Client,
    web: Any,
    s3_settings: dict[str, Any],
    tmp_path: Path,
    point: str,
    reads: int,
) -> None:
    web.pages["/a"] = web.page(body=b"aa")
    values = {
        "nats_url": nats_server.url,
        "data_dir": tmp_path / "dataset",
        "time_profile": "test",
        "egress_allow": json.dumps([web.authority]),
        "failpoints": f"{point}=kill",
        "failpoints_dir": tmp_path,
        **s3_settings,
    }
    environment = {
        **os.environ,
        **{f"STELLWERK_{key.upper()}": str(v) for key, v in values.items()},
    }
    command = [sys.executable, "-m", "stellwerk_dataset"]
    first = subprocess.Popen(command, env=environment)
    try:

        async def create() -> Any:
            try:
                return await client.create(kind="urls", urls=[web.url("/a")])
            except Exception:
                return None

        made = await wait_until(create, 20)
        await client.prepare("run-1", x={"dataset": made.dataset_id})
        await wait_until(lambda: first.poll() is not None, 20)
        assert first.returncode == -signal.SIGKILL
        second = subprocess.Popen(command, env=environment)
        try:
            assert (await client.ready("run-1")).inputs["x"].bytes == 2
            assert web.count("/a") == reads
        finally:
            second.terminate()
            assert second.wait(20) == 0
    finally:
        first.kill()
        first.wait()


def test_settings_refuse_what_is_no_host_and_port() -> None:
    with pytest.raises(ValueError, match="host:port"):
        Settings(egress_allow=["files.lab"])
    assert Settings(egress_allow=["Files.lab:80"]).egress_allow == {"files.lab:80"}
