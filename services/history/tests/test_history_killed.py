"""kill -9 between any two steps, then a new process: every fact once, every byte there."""

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from history_setup import Sim, Start, completed

from stellwerk import events as e
from stellwerk.answers import FileList
from stellwerk.errors import NotFoundError, ServiceUnavailableError
from stellwerk_history.archive_store import ArchiveStore, Pending
from stellwerk_history.archiver import Archiver
from stellwerk_history.stream import InOrder
from stellwerk_kit.bus import Bus
from stellwerk_kit.consumer import Delivery
from stellwerk_kit.testing import NatsServer, wait_until

Launch = Callable[[str], subprocess.Popen[bytes]]
LOG = b"line\n" * 20_000


@pytest.fixture
def launch(
    nats_server: NatsServer, s3_settings: dict[str, Any], tmp_path: Path
) -> Iterator[Launch]:
    """Starts the service as a process, with failpoints."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(failpoints: str) -> subprocess.Popen[bytes]:
        values = {**s3_settings, "nats_url": nats_server.url, "data_dir": tmp_path / "history"}
        values |= {"time_profile": "test", "failpoints": failpoints, "failpoints_dir": tmp_path}
        environment = {f"STELLWERK_{name.upper()}": str(value) for name, value in values.items()}
        with (tmp_path / "history.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stellwerk_history"],
                env={**os.environ, **environment},
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield begin
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(
    "point",
    [
        "history.events_projected",
        "history-events.before_ack",
        "history.logs_written",
        "history-logs.before_ack",
        "history-metrics.before_ack",
        "history.before_archived",
        "history.after_archived",
        "history.before_publish",
        "history.after_publish",
    ],
)
async def test_killed_anywhere_the_run_is_archived_once(
    launch: Launch, sim: Sim, point: str
) -> None:
    subscription = await sim.bus.client.subscribe("sw.evt.archive.>")
    process = launch(f"{point}=kill")
    run_id = await sim.submit()
    if "publish" in point:  # what the answer does not tell has to be sealed with it
        await with_build_log(sim, run_id)
    await sim.until_running(run_id)
    for offset in range(0, len(LOG), 25_000):
        await sim.write(run_id, LOG[offset : offset + 25_000], offset=offset)
    await sim.log(run_id, 0, {"k": "metric", "n": "m", "t": "scalar", "v": 1, "s": None, "ts": 1})
    manifest = await sim.store({"outputs/x": b"x"})
    await sim.end(run_id, LOG, outputs_manifest=manifest, metric_records=1)
    assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
    launch("")
    message = await subscription.next_msg(30)
    assert isinstance(e.decode(message.subject, message.headers, message.data).event, e.RunArchived)
    await sim.say(completed(run_id))
    await wait_until(lambda: sim.completed(run_id), 20)
    seen = await sim.events(run_id, "RunCompleted")
    assert [each.sequence for each in seen] == list(range(1, len(seen) + 1))
    assert [each.type for each in seen].count("RunArchived") == 1
    files = (await sim.ask("run-files", FileList, run_id=run_id)).files
    built = [("azureml-logs/20_image_build_log.txt", 6)] if "publish" in point else []
    assert [(file.path, file.size) for file in files] == [
        *built,
        ("outputs/x", 1),
        ("user_logs/std_log.txt", len(LOG)),
    ]
    assert await sim.follow(run_id, len(LOG)) == LOG


async def with_build_log(sim: Sim, run_id: str) -> None:
    """Let the run have waited for a build whose log history has completely."""
    env_id = "e" * 32
    await sim.say(e.ImageBuildStarted(env_id=env_id, build=1, run_ids=(run_id,)))
    await sim.write(env_id, b"built\n", stream="build", **{"Sw-Final": "1"})

    async def closed() -> bool:
        try:
            asked = {"env_id": env_id, "build": 1}
            reply = await sim.bus.call_raw("history", "build-log-read", asked)
        except (NotFoundError, ServiceUnavailableError):
            return False
        return reply.headers["Sw-Closed"] == "1"

    await wait_until(closed, 30)


async def test_stopped_while_it_waits_for_a_log(start: Start, sim: Sim) -> None:
    first = await start()
    run_id = await sim.submit()
    await sim.until_running(run_id)
    await sim.write(run_id, LOG[:1000])
    await sim.end(run_id, LOG[:2000])
    await sim.events(run_id, "RunFinalizing")
    await first.stop()
    await sim.write(run_id, LOG[1000:2000], offset=1000)
    await start()
    await sim.events(run_id, "RunArchived")
    assert (await sim.read(run_id)).headers["Sw-Closed"] == "1"


async def test_what_was_said_is_projected_before_any_archive_is_begun(
    start: Start, sim: Sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its answer may be among what an earlier process said and did not live to project."""
    begun: list[str] = []
    archive = Archiver.archive

    async def noted(self: Archiver, pending: Pending, **options: Any) -> int | None:
        begun.append(pending.run_id)
        return await archive(self, pending, **options)

    first = await start()
    run_ids = [await sim.submit(), await sim.submit()]
    for run_id in run_ids:
        await sim.until_running(run_id)
        await sim.end(run_id, b"end\n")
        await sim.events(run_id, "RunFinalizing")
    await first.stop()
    for run_id in run_ids:
        await sim.write(run_id, b"end\n")
    told = e.RunArchived(run_id=run_ids[0], attempt=1, manifest="0" * 64, files=0, bytes=0)
    await sim.say(told, completed(run_ids[0]))
    monkeypatch.setattr(Archiver, "archive", noted)
    await start()
    await sim.events(run_ids[0], "RunCompleted")
    await sim.events(run_ids[1], "RunArchived")
    assert begun == [run_ids[1]]


@pytest.mark.store_file
async def test_what_a_power_failure_took_is_read_from_the_stream_again(
    start: Start, sim: Sim, tmp_path: Path
) -> None:
    first = await start()
    run_id = await sim.submit()
    await sim.events(run_id, "RunSubmitted")
    await first.stop()
    before, folder = tmp_path / "before", tmp_path / "history"
    shutil.copytree(folder, before)
    second = await start()
    await sim.until_running(run_id)
    await sim.events(run_id, "RunStarted")
    await second.stop()
    shutil.rmtree(folder)
    before.rename(folder)
    await start()
    assert (await sim.events(run_id, "RunStarted"))[-1].status == "Running"


@pytest.mark.store_file
async def test_what_a_power_failure_took_of_the_outbox_is_neither_lost_nor_doubled(
    start: Start, sim: Sim, bus: Bus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store as it was when an answer had just been committed.

    That the answer left the outbox was not flushed, nor was the projection of the facts since then,
    which are acknowledged: nobody brings them again.
    """
    store, earlier = tmp_path / "history" / "history.db", tmp_path / "earlier.db"
    answer = ArchiveStore.answer

    async def answered(self: ArchiveStore, *what: Any) -> None:
        await answer(self, *what)
        if not earlier.exists():
            with closing(sqlite3.connect(store)) as now, closing(sqlite3.connect(earlier)) as copy:
                now.backup(copy)

    def in_outbox(path: Path) -> int:
        with closing(sqlite3.connect(path)) as conn:
            return int(conn.execute("SELECT count(*) FROM outbox").fetchone()[0])

    monkeypatch.setattr(ArchiveStore, "answer", answered)
    first = await start()
    run_ids = [await sim.submit(), await sim.submit()]
    await with_build_log(sim, run_ids[0])  # its seal needs a transaction
    for run_id in run_ids:
        await sim.until_running(run_id)
        await sim.write(run_id, LOG[:10_000])
        await sim.end(run_id, LOG[:10_000])
        await sim.events(run_id, "RunArchived")
        await sim.say(completed(run_id))
    seen = [await sim.events(run_id, "RunCompleted") for run_id in run_ids]

    async def settled() -> bool:
        info = await bus.js.consumer_info("SW_EVENTS", "history-events")
        return not info.num_pending and not info.num_ack_pending and not in_outbox(store)

    await wait_until(settled)
    await first.stop()
    assert in_outbox(earlier) == 1
    for path in store.parent.glob("history.db*"):
        path.unlink()
    earlier.rename(store)
    await start()
    for run_id, before in zip(run_ids, seen, strict=True):
        assert await sim.events(run_id, "RunCompleted") == before
        assert await sim.follow(run_id, 10_000) == LOG[:10_000]
    await wait_until(lambda: not in_outbox(store))
    archived = await bus.js.stream_info("SW_EVENTS", subjects_filter="sw.evt.archive.>")
    assert sorted((archived.state.subjects or {}).values()) == [1, 1]


@pytest.mark.store_file
async def test_a_lost_store_is_filled_again_from_the_stream(
    start: Start, sim: Sim, tmp_path: Path
) -> None:
    first = await start()
    run_ids = [await sim.submit() for _ in range(5)]
    archived = run_ids[0]
    await sim.until_running(archived)
    await sim.write(archived, LOG)
    await sim.end(archived, LOG)
    await sim.events(archived, "RunArchived")
    await sim.say(completed(archived))
    await sim.events(archived, "RunCompleted")
    before = [await sim.run(run_id) for run_id in run_ids]
    await first.stop()
    for path in (tmp_path / "history").glob("history.db*"):
        path.unlink()
    shutil.rmtree(tmp_path / "history" / "logs")
    await start(archive_budget_s=0.1)
    clock = {"phases": {}}
    for view in before:
        again = await sim.run(view.run_id, wait_s=0)
        assert again.model_copy(update=clock) == view.model_copy(update=clock)
    assert await sim.follow(archived, len(LOG)) == LOG


async def test_what_is_missing_in_front_is_read_from_the_stream(bus: Bus, sim: Sim) -> None:
    run_ids = [await sim.submit() for _ in range(5)]
    handled: list[Delivery] = []

    async def handle(deliveries: list[Delivery]) -> None:
        handled.extend(deliveries)

    messages = [await bus.js.get_msg("SW_EVENTS", number) for number in range(1, 6)]
    deliveries = [
        Delivery(m.subject or "", m.headers or {}, m.data or b"", m.seq or 0) for m in messages
    ]
    in_order = InOrder(bus, "history-events", 0, handle)
    await in_order([deliveries[3]])
    await in_order([deliveries[0], deliveries[4], deliveries[3], deliveries[2]])
    assert [each.stream_sequence for each in handled] == [1, 2, 3, 4, 5]
    assert [each.decode().event.aggregate_id for each in handled] == run_ids


async def test_a_stream_that_began_anew_is_read_from_its_start(bus: Bus, sim: Sim) -> None:
    handled: list[int] = []

    async def handle(deliveries: list[Delivery]) -> None:
        handled.extend(each.stream_sequence for each in deliveries)

    in_order = InOrder(bus, "history-events", 1000, handle)
    await in_order.recover()
    await sim.submit()
    message = await bus.js.get_msg("SW_EVENTS", 1)
    await in_order([Delivery(message.subject or "", message.headers or {}, message.data or b"", 1)])
    assert handled == [1]
