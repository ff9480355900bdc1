"""Post-processing: what is verified, what is waited for, what fails for good."""

import os
from pathlib import Path
from typing import Any

import pytest
from history_setup import Sim, Start, closure, stream

from stellwerk import events as e
from stellwerk.answers import FileList, LogList
from stellwerk.events import ExitSummary
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_history import reconcile, store
from stellwerk_history.app import build
from stellwerk_history.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import S3Server, wait_until

STD = "user_logs/std_log.txt"


async def running(sim: Sim, log: bytes) -> str:
    run_id = await sim.submit()
    await sim.until_running(run_id)
    if log:
        await sim.write(run_id, log)
    return run_id


async def finalize(sim: Sim, run_id: str, **values: Any) -> None:
    summary = ExitSummary(reason="exited", exit_code=0, **values)
    await sim.say(e.RunFinalizing(run_id=run_id, attempt=1, outcome="Completed", exit=summary))


async def failure(sim: Sim, run_id: str) -> tuple[str, str]:
    entry = (await sim.events(run_id, "ArchiveFailed"))[-1]
    return entry.data["code"], entry.message


async def test_a_log_that_never_arrives_fails_after_the_budget(start: Start, sim: Sim) -> None:
    await start(archive_budget_s=0.3)
    run_id = await running(sim, b"some")
    await finalize(sim, run_id, logs=(closure("std", STD, b"something"),))
    code, message = await failure(sim, run_id)
    assert code == "log.incomplete"
    assert message == f"The log did not arrive completely: {STD} (4 of 9 bytes)."


async def test_a_log_with_other_bytes_fails_at_once(start: Start, sim: Sim) -> None:
    await start()
    run_id = await running(sim, b"something")
    await finalize(sim, run_id, logs=(closure("std", STD, b"somethinG"),))
    assert (await failure(sim, run_id))[0] == "log.mismatch"


async def test_a_rewritten_file_under_logs_keeps_what_was_seen(start: Start, sim: Sim) -> None:
    await start()
    run_id = await running(sim, b"")
    await sim.write(run_id, b"before", stream=stream("logs/a"), path="logs/a")
    await finalize(sim, run_id, logs=(closure("std", STD, b""), closure(stream("logs/a"), "logs/a", b"after!")))  # fmt: skip
    await sim.events(run_id, "RunArchived")
    assert (await sim.read(run_id, "logs/a")).body == b"before"


async def test_records_that_never_arrive(start: Start, sim: Sim) -> None:
    await start(archive_budget_s=0.3)
    run_id = await running(sim, b"")
    await sim.log(run_id, 0, {"k": "tag", "n": "a", "v": "b"})
    await finalize(sim, run_id, metric_records=3)
    assert await failure(sim, run_id) == ("metrics.incomplete", "1 of 3 logged records arrived.")


@pytest.mark.parametrize(
    ("given", "code"),
    [("missing", "outputs.missing"), ("malformed", "outputs.malformed"), ("wrong", "outputs.incomplete")],
)  # fmt: skip
async def test_outputs_that_are_not_what_they_should_be(
    start: Start, sim: Sim, given: str, code: str
) -> None:
    await start(archive_budget_s=0.3)
    run_id = await running(sim, b"")
    wrong = ManifestEntry(path="outputs/x", size=3, sha256=await sim.objects.put_bytes(b"four"))
    digest = {
        "missing": "0" * 64,
        "malformed": await sim.objects.put_bytes(b"no manifest"),
        "wrong": await sim.objects.put_manifest(Manifest(entries=(wrong,))),
    }[given]
    await finalize(sim, run_id, outputs_manifest=digest)
    found, message = await failure(sim, run_id)
    assert found == code
    assert given != "wrong" or "outputs/x" in message


async def test_outputs_that_come_late_are_waited_for(start: Start, sim: Sim) -> None:
    await start()
    run_id = await running(sim, b"")
    manifest = Manifest(entries=(ManifestEntry(path="outputs/x", size=0, sha256="e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),))  # fmt: skip
    await finalize(sim, run_id, outputs_manifest=manifest.digest())
    await sim.events(run_id, "RunFinalizing")
    await sim.objects.put_bytes(b"")
    await sim.objects.put_manifest(manifest)
    await sim.events(run_id, "RunArchived")


async def test_a_lost_attempt_is_archived_as_it_is(start: Start, sim: Sim) -> None:
    await start()
    run_id = await running(sim, b"half a li")
    digest = await sim.objects.put_bytes(b"given")
    await sim.log(
        run_id, 0,
        {"k": "file", "n": "given.txt", "f": "given.txt", "size": 5, "sha256": digest},
        {"k": "image", "n": "curve", "f": "curve_1.png", "size": 5, "sha256": digest},
        {"k": "file", "n": "gone.txt", "size": 5, "sha256": "0" * 64},
    )  # fmt: skip
    await sim.follow(run_id, 9)

    async def given() -> bool:
        files = (await sim.ask("run-files", FileList, run_id=run_id)).files
        return len(files) == 4

    await wait_until(given)
    await sim.say(e.RunFinalizing(run_id=run_id, attempt=1, outcome="Failed", exit=None))
    await sim.events(run_id, "RunArchived")
    files = (await sim.ask("run-files", FileList, run_id=run_id)).files
    assert [(f.path, f.size) for f in files] == [("curve_1.png", 5), ("given.txt", 5), (STD, 9)]


async def test_an_output_in_a_logs_place_gives_way(start: Start, sim: Sim) -> None:
    await start()
    run_id = await running(sim, b"the log")
    manifest = await sim.store({STD: b"forged", "user_logs/std_log.txt.bak": b"x"})
    await sim.end(run_id, b"the log", outputs_manifest=manifest)
    await sim.events(run_id, "RunArchived")
    files = {f.path: f for f in (await sim.ask("run-files", FileList, run_id=run_id)).files}
    assert await sim.objects.get_bytes(files[STD].sha256 or "") == b"the log"
    assert sorted(files) == [STD, "user_logs/std_log.txt.bak"]


async def test_stored_logs_leave_the_disk_and_come_back(
    start: Start, sim: Sim, tmp_path: Path
) -> None:
    first = await start()
    text = b"0123456789" * 1000
    run_id = await running(sim, text)
    await sim.end(run_id, text)
    await sim.events(run_id, "RunArchived")
    await first.stop()
    await start(log_cache_bytes=1000)

    def log_files() -> list[str]:
        # Not rglob, which fails where a folder goes while it looks.
        found = os.walk(tmp_path / "history" / "logs")
        return [name for _, _, names in found for name in names]

    await wait_until(lambda: not log_files())
    assert await sim.follow(run_id, len(text)) == text
    assert log_files()
    logs = (await sim.ask("run-logs", LogList, run_id=run_id)).logs
    assert [(each.bytes, each.closed) for each in logs] == [(len(text), True)]


async def test_an_answer_that_the_projection_leaves_out_is_given_in_a_transaction(
    start: Start, sim: Sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("no column holds this")

    monkeypatch.setattr(store, "close", broken)
    monkeypatch.setattr(reconcile, "ARCHIVES_S", 0.05)
    await start()
    run_id = await running(sim, b"kept")
    await sim.follow(run_id, 4)
    await sim.end(run_id, b"kept")

    async def sealed() -> bool:
        reply = await sim.read(run_id)
        return (reply.body, reply.headers["Sw-Closed"]) == (b"kept", "1")

    await wait_until(sealed)


async def test_the_object_store_may_be_away(runtime_factory: Any, bus: Bus, tmp_path: Path) -> None:
    server = S3Server(tmp_path / "s3").start()
    try:
        s3 = {"s3_endpoint": server.endpoint, "s3_credentials": server.credentials}
        objects = ObjectStore(ServiceSettings(**s3))
        sim = Sim(bus, objects)
        await runtime_factory("history", Settings, build, archive_budget_s=0.2, **s3)
        run_id = await running(sim, b"kept")
        await sim.follow(run_id, 4)
        server.kill()
        await sim.end(run_id, b"kept")
        await sim.events(run_id, "RunFinalizing")
        assert (await sim.read(run_id)).body == b"kept"
        server.start()
        await sim.events(run_id, "RunArchived")
        objects.close()
    finally:
        server.stop()
