"""Tables, parts of datasets, and what runs leave as outputs, on real servers."""

from typing import Any

import pytest
from dataset_client import Client

from stellwerk.api import DatasetFileView, DatasetView, Page
from stellwerk.errors import NotFoundError, UserError
from stellwerk.events import DatasetProduced, Envelope, ExitSummary, RunCompleted, StoredOutput
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_dataset.app import build
from stellwerk_dataset.settings import Settings
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.testing import wait_until

CSV = {"format": "delimited", "separator": ";"}


@pytest.fixture
async def service(runtime_factory: Any, s3_settings: Any, web: Any, tmp_path: Any) -> Any:
    return await runtime_factory(
        "dataset", Settings, build, data_dir=tmp_path / "dataset", egress_allow=[web.authority],
        **s3_settings,
    )  # fmt: skip


async def files(client: Client, dataset_id: str) -> list[str]:
    page = await client.call("dataset-files", Page[DatasetFileView], dataset_id=dataset_id)
    return [file.path for file in page.items]


async def derive(client: Client, tabular: Any = None, **source: Any) -> Any:
    request = {"source": source, "tabular": tabular}
    return await client.call("dataset-create", DatasetView, **request)


async def test_a_table_is_its_files_and_its_definition(service: Any, client: Client) -> None:
    base = await client.make(a=b"1;2", b=b"3;4")
    assert base.tabular is None
    whole = {"kind": "dataset", "dataset_id": base.dataset_id}
    table = await derive(client, CSV, **whole)
    assert table.tabular is not None
    assert (table.files, table.bytes, table.tabular.separator) == (2, 6, ";")
    assert await files(client, table.dataset_id) == ["a", "b"]
    assert (await derive(client, CSV, **whole)).created is False
    steps = [{"op": "take", "count": 3}, {"op": "keep", "columns": ["x"]}]
    other = await derive(
        client, {**CSV, "steps": steps}, kind="dataset", dataset_id=table.dataset_id
    )
    same = await derive(client, {**CSV, "steps": steps}, **whole)
    assert other.dataset_id == same.dataset_id != table.dataset_id
    got = await client.call("dataset-get", DatasetView, dataset_id=other.dataset_id)
    assert [step.op for step in got.tabular.steps] == ["take", "keep"]
    assert await derive(client, **whole) == base.model_copy(update={"created": False})


async def test_tables_are_versions_of_their_own(service: Any, client: Client) -> None:
    base = await client.make(a=b"1;2")
    table = await derive(client, CSV, kind="dataset", dataset_id=base.dataset_id)
    assert (await client.register(base.dataset_id, "data")).version == 1
    second = await client.register(table.dataset_id, "data", create_new_version=True)
    assert (second.version, second.tabular) == (2, table.tabular)
    assert (await client.register(table.dataset_id, "data")).created is False


async def test_a_table_comes_to_a_run_as_itself(service: Any, client: Client) -> None:
    base = await client.make(a=b"1;2")
    table = await derive(client, CSV, kind="dataset", dataset_id=base.dataset_id)
    await client.prepare("run-1", x={"dataset": table.dataset_id, "mode": "direct"})
    assert (await client.ready("run-1")).inputs["x"].dataset_id == table.dataset_id
    await client.prepare("run-2", x={"dataset": table.dataset_id, "mode": "mount"})
    failed = await client.failed("run-2")
    assert (failed.code, failed.input) == ("input.mode", "x")


async def test_a_part_of_the_files(service: Any, client: Client, web: Any) -> None:
    base = await client.make(a=b"1", b=b"22", c=b"333")
    part = await derive(client, kind="dataset", dataset_id=base.dataset_id, paths=["c", "a", "a"])
    assert (part.files, part.bytes) == (2, 4)
    assert await files(client, part.dataset_id) == ["a", "c"]
    with pytest.raises(NotFoundError, match="no file 'z'"):
        await derive(client, kind="dataset", dataset_id=base.dataset_id, paths=["z"])
    with pytest.raises(NotFoundError):
        await derive(client, kind="dataset", dataset_id="0" * 32)

    web.pages["/a"], web.pages["/b"] = web.page(body=b"aa"), web.page(body=b"b")
    host = f"127.0.0.1_{web.port}"
    pages = await client.create(kind="urls", urls=[web.url("/a"), web.url("/b")])
    unread = await derive(client, kind="dataset", dataset_id=pages.dataset_id, paths=[f"{host}/a"])
    assert (unread.files, unread.bytes, web.requests) == (1, None, [])
    await client.prepare("run-1", x={"dataset": unread.dataset_id})
    assert (await client.ready("run-1")).inputs["x"].bytes == 2
    assert (web.count("/a"), web.count("/b")) == (1, 0)
    again = await derive(client, CSV, kind="dataset", dataset_id=unread.dataset_id)
    assert again.bytes == 2


async def test_a_definition_has_a_limit(service: Any, client: Client) -> None:
    base = await client.make(a=b"1")
    huge = {**CSV, "steps": [{"op": "filter", "expression": ["x" * 300_000]}]}
    with pytest.raises(UserError, match="limit is 262144") as caught:
        await derive(client, huge, kind="dataset", dataset_id=base.dataset_id)
    assert caught.value.field == "tabular"


class Runs:
    """Completes runs as the scheduler does."""

    def __init__(self, client: Client) -> None:
        self.client, self.number = client, 0

    async def complete(self, run_id: str, contents: dict[str, bytes], **output: Any) -> Any:
        entries = [
            ManifestEntry(path=path, size=len(data), sha256=await self.client.objects.put_bytes(data))
            for path, data in contents.items()
        ]  # fmt: skip
        manifest = await self.client.objects.put_manifest(Manifest(entries=tuple(entries)))
        stored = StoredOutput(manifest=manifest, files=len(entries), bytes=0)
        event = RunCompleted(
            run_id=run_id, experiment="e", attempt=1, outputs={"out": output},
            exit=ExitSummary(reason="exited", exit_code=0, outputs={"out": stored}),
        )  # fmt: skip
        for message_id in ("first", "again"):  # a fact may come twice
            envelope = Envelope.wrap(event, source="/test", time=SystemClock().now(), sequence=9)
            headers = {**envelope.headers(), "Nats-Msg-Id": f"{run_id}/{message_id}"}
            await self.client.bus.publish_raw(event.subject(), event.data(), headers)
        produced = await self.client.answer(run_id, "produced")
        assert isinstance(produced, DatasetProduced)
        return produced.outputs["out"], produced.warnings


async def test_outputs_of_a_completed_run_become_datasets(service: Any, client: Client) -> None:
    runs = Runs(client)
    made, warnings = await runs.complete("r1", {"sub/a.csv": b"1", "b.csv": b"22"})
    assert (made.datastore, made.path, made.files, made.bytes, made.name, warnings) == (
        "workspaceblobstore", "dataset/r1/out", 2, 3, None, (),
    )  # fmt: skip
    assert await files(client, made.dataset_id) == ["b.csv", "sub/a.csv"]
    stored = await client.call(
        "datastore-files", Page[DatasetFileView], name="workspaceblobstore", prefix="dataset/r1/"
    )
    assert [file.path for file in stored.items] == [
        "dataset/r1/out/b.csv",
        "dataset/r1/out/sub/a.csv",
    ]
    again = await client.create(
        kind="datastore", paths=[{"datastore": "workspaceblobstore", "path": "dataset/r1/out"}]
    )
    assert (again.dataset_id, again.created) == (made.dataset_id, False)


async def test_outputs_are_registered_as_new_versions(service: Any, client: Client) -> None:
    runs = Runs(client)
    wanted = {"register_as": {"name": "cleaned", "tags": {"a": "1"}}, "tabular": CSV}
    first, _ = await runs.complete("r1", {"a.csv": b"1"}, **wanted)
    second, _ = await runs.complete("r2", {"a.csv": b"2"}, **wanted)
    assert [(each.name, each.version) for each in (first, second)] == [
        ("cleaned", 1),
        ("cleaned", 2),
    ]
    view = await client.call("dataset-get", DatasetView, name="cleaned")
    assert (view.dataset_id, view.tags) == (second.dataset_id, {"a": "1"})
    assert view.tabular.separator == ";"


async def test_outputs_that_cannot_be_kept_are_a_warning(service: Any, client: Client) -> None:
    runs = Runs(client)
    there = {"path": "shared/place", "mode": "upload"}
    _, warnings = await runs.complete("r1", {"a": b"1"}, **there)
    assert warnings == ()
    kept, warnings = await runs.complete("r2", {"a": b"2"}, register_as={"name": "n"}, **there)
    assert kept.dataset_id is None
    assert "overwrite=True" in warnings[0]
    with pytest.raises(NotFoundError):
        await client.call("dataset-get", DatasetView, name="n")
    replaced, warnings = await runs.complete("r3", {"a": b"3"}, **{**there, "mode": "mount"})
    assert (replaced.files, warnings) == (1, ())
    empty, warnings = await runs.complete("r4", {})
    assert (empty.dataset_id, warnings) == (
        None,
        ("output 'out' was not kept: the run left no file in it",),
    )


async def test_a_store_that_is_away_delays_and_loses_nothing(service: Any, client: Client) -> None:
    """The manifest comes late: the fact is tried again until it is there."""
    event = RunCompleted(
        run_id="r9", experiment="e", attempt=1, outputs={"out": {}},
        exit=ExitSummary(
            reason="exited", exit_code=0,
            outputs={"out": StoredOutput(manifest=(late := Manifest(entries=(ManifestEntry(path="a", size=1, sha256=await client.objects.put_bytes(b"x")),))).digest(), files=1, bytes=1)},
        ),
    )  # fmt: skip
    envelope = Envelope.wrap(event, source="/test", time=SystemClock().now(), sequence=9)
    await client.bus.publish_raw(event.subject(), event.data(), envelope.headers())

    async def tried() -> bool:
        info = await client.bus.js.consumer_info("SW_EVENTS", "dataset-runs")
        return info.num_redelivered > 0 or info.num_ack_pending > 0

    await wait_until(tried)
    await client.objects.put_manifest(late)
    produced = await client.answer("r9", "produced")
    assert produced.outputs["out"].files == 1


async def test_one_file_among_many(service: Any, client: Client) -> None:
    base = await client.make(a=b"1", b=b"22")
    query = {"dataset_id": base.dataset_id, "fetch": False}
    one = await client.call("dataset-files", Page[DatasetFileView], path="b", **query)
    assert [(file.path, file.size) for file in one.items] == [("b", 2)]
    assert one.next_cursor is None
    none = await client.call("dataset-files", Page[DatasetFileView], path="nope", **query)
    assert none.items == ()
