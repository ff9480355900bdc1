"""The life of a run as history sees it, on a real broker and a real object store."""

import asyncio
import hashlib
from dataclasses import replace

import pytest
from history_setup import START, Sim, Start, closure, completed, image, queued, spec, stream

from stellwerk import events as e
from stellwerk import ids
from stellwerk.answers import FileList, LogList, MetricList
from stellwerk.api import RunView
from stellwerk.errors import ConflictError, NotFoundError
from stellwerk_history import wakeups
from stellwerk_history.closing import EMPTY_SHA256
from stellwerk_history.verbs import EventsReply
from stellwerk_kit import pull, topology
from stellwerk_kit.testing import wait_until

LOG = b"epoch 1\nepoch 2\n"


async def test_whole_life_of_a_run(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit(tags={"stage": "trial"}, display_name="first try")
    await sim.say(e.ImageBuildStarted(env_id="e" * 32, build=3, run_ids=(run_id,)))
    await sim.until_running(run_id)
    await sim.write(run_id, LOG)
    await sim.log(
        run_id,
        0,
        {"k": "metric", "n": "loss", "t": "scalar", "v": 0.5, "s": 1, "ts": 1795486436.5},
        {"k": "tag", "n": "seed", "v": "7", "ts": 1.0},
        {"k": "file", "n": "outputs/a.txt", "size": 1, "sha256": "a" * 64},
    )
    assert await sim.follow(run_id, len(LOG)) == LOG
    live = await wait_until(lambda: sim.ask("run-files", FileList, run_id=run_id))
    assert [file.path for file in live.files][-1] == "user_logs/std_log.txt"
    manifest = await sim.store({"outputs/model": b"weights", "outputs/notes.txt": b"n"})
    await sim.end(
        run_id, LOG, outputs_manifest=manifest, metric_records=3, outputs_skipped=("x: link",)
    )
    await sim.events(run_id, "RunArchived")
    await sim.say(completed(run_id, outputs_manifest=manifest))
    seen = await sim.events(run_id, "RunCompleted")
    assert [each.type for each in seen] == [
        "RunSubmitted", "ImageBuildStarted", "RunPreparing", "RunQueued", "RunAssigned",
        "RunStarted", "RunFinalizing", "RunArchived", "RunCompleted",
    ]  # fmt: skip
    assert [each.sequence for each in seen] == list(range(1, 10))
    run = await sim.run(run_id)
    assert (run.status, run.attempt, run.number, run.sequence) == ("Completed", 1, 1, 9)
    assert (run.display_name, run.node_id, run.target) == ("first try", "local-1-x", "local")
    assert run.tags == {"seed": "7", "stage": "trial"}
    assert run.warnings == ("python 3.6 became 3.11", "not stored: x: link")
    assert run.phases["preparing"] == 3
    assert run.phases["scaling"] == 1
    assert run.phases["starting"] == 1
    assert run.phases["running"] == 1
    assert run.exit is not None
    assert run.exit.exit_code == 0
    assert run.started_at is not None
    assert run.ended_at is not None
    files = (await sim.ask("run-files", FileList, run_id=run_id)).files
    assert [(file.path, file.size) for file in files] == [
        ("outputs/model", 7), ("outputs/notes.txt", 1), ("user_logs/std_log.txt", len(LOG)),
    ]  # fmt: skip
    assert await sim.objects.get_bytes(files[2].sha256 or "") == LOG
    assert run.archive_manifest is not None
    stored = await sim.objects.get_manifest(run.archive_manifest)
    assert [entry.path for entry in stored.entries] == [file.path for file in files]
    reply = await sim.read(run_id, offset=8)
    assert (reply.body, reply.headers["Sw-Closed"], reply.headers["Sw-Next-Offset"]) == (
        LOG[8:], "1", str(len(LOG)),
    )  # fmt: skip
    points = (await sim.ask("run-metrics", MetricList, run_id=run_id)).points
    assert [(p.name, p.kind, p.value, p.step, p.sequence) for p in points] == [
        ("loss", "scalar", 0.5, 1, 1)
    ]


async def test_an_archive_answers_with_the_facts(start: Start, sim: Sim) -> None:
    await start()
    subscription = await sim.bus.client.subscribe("sw.evt.archive.>")
    run_id = await sim.submit()
    await sim.until_running(run_id)
    await sim.write(run_id, LOG)
    await sim.end(run_id, LOG)
    message = await subscription.next_msg(10)
    fact = e.decode(message.subject, message.headers, message.data)
    assert isinstance(fact.event, e.RunArchived)
    assert fact.event.logs == (closure("std", "user_logs/std_log.txt", LOG),)
    assert (fact.event.files, fact.event.bytes, fact.event.attempt) == (1, len(LOG), 1)
    assert fact.causation_id == f"run/{run_id}/5"


async def test_out_of_order_repeated_and_overlapping_chunks(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit()
    await sim.until_running(run_id)
    text = bytes(range(256)) * 40
    await sim.write(run_id, text[4000:6000], offset=4000)
    await sim.write(run_id, text[2000:4000], offset=2000)
    await sim.write(run_id, text[:1000])
    await sim.write(run_id, text[:1000], again="again")
    await sim.write(run_id, text[500:2500], offset=500)
    await sim.write(run_id, text[5000:], offset=5000)
    assert await sim.follow(run_id, len(text)) == text
    await sim.end(run_id, text)
    await sim.events(run_id, "RunArchived")


async def test_invalid_utf8_stays_as_it_is(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit()
    await sim.until_running(run_id)
    text = b"\xff\xfe\x00no text\xc3" + "ä".encode()[:1] * 5
    await sim.write(run_id, text)
    await sim.end(run_id, text)
    await sim.events(run_id, "RunArchived")
    assert (await sim.read(run_id)).body == text


async def test_a_million_lines_arrive_as_they_were(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit()
    await sim.until_running(run_id)
    text = b"".join(b"%08d the quick brown fox\n" % number for number in range(1_000_000))
    for offset in range(0, len(text), 256 * 1024):
        await sim.write(run_id, text[offset : offset + 256 * 1024], offset=offset)
    await sim.end(run_id, text)
    await sim.events(run_id, "RunArchived")
    files = (await sim.ask("run-files", FileList, run_id=run_id)).files
    assert files[0].sha256 == hashlib.sha256(text).hexdigest()
    assert (
        hashlib.sha256(await sim.follow(run_id, len(text))).digest()
        == hashlib.sha256(text).digest()
    )


async def test_logs_of_files_and_of_earlier_attempts(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit()
    await sim.until_running(run_id)
    name = "logs/train/ä.log"
    await sim.write(run_id, b"first try\n")
    await sim.write(run_id, b"file 1", stream=stream(name), path=name)
    await sim.log(
        run_id, 0, {"k": "metric", "n": "loss", "t": "scalar", "v": 1.0, "s": None, "ts": 1}
    )
    await sim.follow(run_id, 10)
    waiting = asyncio.ensure_future(sim.read(run_id, offset=10, wait_s=20))
    retry = e.RunRetrying(run_id=run_id, attempt=2, reason="lost", message="gone", delay_s=1)
    await sim.say(e.AttemptLost(run_id=run_id, attempt=1, node_id="n"), retry)
    await sim.until_running(run_id, attempt=2)
    # The path belongs to the new attempt from now on: who read the old one hears it at once.
    reply = await asyncio.wait_for(waiting, 10)
    assert (reply.body, reply.headers["Sw-Next-Offset"]) == (b"", "10")
    await sim.write(run_id, b"second\n", attempt=2)
    await sim.write(run_id, b"file 2", attempt=2, stream=stream(name), path=name)
    await sim.log(
        run_id,
        0,
        {"k": "metric", "n": "acc", "t": "scalar", "v": 2.0, "s": None, "ts": 1},
        attempt=2,
    )
    assert await sim.follow(run_id, 7) == b"second\n"
    await sim.write(run_id, b"late", offset=10)

    async def rest() -> bool:
        late = await sim.read(run_id, attempt=1, offset=6)
        assert late.headers["Sw-Attempt"] == "1"
        return late.body == b"try\nlate"

    await wait_until(rest)
    assert (await sim.read(run_id, name, attempt=1)).body == b"file 1"
    over = await asyncio.wait_for(sim.read(run_id, attempt=1, offset=14, wait_s=20), 10)
    assert over.body == b"", "nothing is waited for when another attempt has begun"
    await sim.end(run_id, b"second\n", attempt=2, logs={name: b"file 2"}, metric_records=1)
    await sim.events(run_id, "RunArchived")
    logs = (await sim.ask("run-logs", LogList, run_id=run_id)).logs
    assert [(each.path, each.bytes, each.closed) for each in logs] == [
        (name, 6, True),
        (f"user_logs/attempt_1/{name}", 6, True),
        ("user_logs/attempt_1/std_log.txt", 14, True),
        ("user_logs/std_log.txt", 7, True),
    ]
    assert (await sim.read(run_id, "user_logs/attempt_1/std_log.txt")).body == b"first try\nlate"
    points = (await sim.ask("run-metrics", MetricList, run_id=run_id)).points
    assert [each.name for each in points] == ["acc"]


async def test_a_build_log_is_part_of_every_run_that_waited(start: Start, sim: Sim) -> None:
    await start()
    first, second, cached = [await sim.submit() for _ in range(3)]
    waiting = asyncio.ensure_future(
        sim.read(first, "azureml-logs/20_image_build_log.txt", wait_s=20)
    )
    await sim.say(e.ImageBuildStarted(env_id="e" * 32, build=2, run_ids=(first, second)))
    await sim.write("e" * 32, b"resolving\n", attempt=2, stream="build")
    assert (await waiting).body == b"resolving\n"
    await sim.write("e" * 32, b"done\n", attempt=2, stream="build", offset=10)
    await sim.write("e" * 32, b"", attempt=2, stream="build", offset=15, **{"Sw-Final": "1"})
    ready = e.ImageReady(env_id="e" * 32, build=2, run_ids=(cached,), image=image(), cached=True)
    await sim.say(ready)

    async def closed() -> bool:
        fields = {"env_id": "e" * 32, "build": 2, "offset": 15, "wait_s": 10}
        reply = await sim.bus.call_raw("history", "build-log-read", fields, 15.0)
        return reply.headers["Sw-Closed"] == "1"

    await wait_until(closed)
    await sim.until_running(second)
    await sim.end(second, b"")
    await sim.events(second, "RunArchived")
    files = (await sim.ask("run-files", FileList, run_id=second)).files
    assert [(file.path, file.size) for file in files] == [
        ("azureml-logs/20_image_build_log.txt", 15), ("user_logs/std_log.txt", 0),
    ]  # fmt: skip
    assert files[1].sha256 == EMPTY_SHA256
    assert await sim.objects.get_bytes(files[0].sha256 or "") == b"resolving\ndone\n"
    await sim.events(cached, "ImageReady")
    assert (await sim.ask("run-logs", LogList, run_id=cached)).logs == ()


async def test_status_stream_resumes_and_wakes_at_once(start: Start, sim: Sim) -> None:
    await start()
    run_id = ids.new_id()
    unknown = asyncio.ensure_future(sim.run(run_id, wait_s=20))
    events = asyncio.ensure_future(sim.ask("run-events", EventsReply, run_id=run_id, wait_s=20))
    await sim.submit(run_id)
    assert (await asyncio.wait_for(unknown, 10)).status == "NotStarted"
    first = await asyncio.wait_for(events, 10)
    assert [each.sequence for each in first.events] == [1]
    following = asyncio.ensure_future(
        sim.ask("run-events", EventsReply, run_id=run_id, after=1, wait_s=20)
    )
    await sim.say(e.RunCancelRequested(run_id=run_id, requested_by="me", reason="wrong data"))
    entry = (await asyncio.wait_for(following, 10)).events[0]
    assert (entry.type, entry.status) == ("RunCancelRequested", "CancelRequested")
    assert entry.message == "Cancellation was requested by me. wrong data"
    await sim.say(e.RunCanceled(run_id=run_id, experiment="mnist", attempt=0))
    over = await sim.ask("run-events", EventsReply, run_id=run_id, after=2, wait_s=20)
    assert over.terminal
    assert over.events[0].status == "Canceled"
    done = await sim.ask("run-events", EventsReply, run_id=run_id, after=3, wait_s=20)
    assert done == EventsReply(events=(), terminal=True)


async def test_who_follows_a_run_never_waits_for_a_fuller_batch(
    start: Start, sim: Sim, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull, "WORTH_A_WAIT", 0)  # as if much came all the time
    monkeypatch.setattr(wakeups, "HASTE_S", 600.0)
    patient = (
        replace(each, linger_s=600.0) if each.name == "history-events" else each
        for each in topology.CONSUMERS
    )
    monkeypatch.setattr(topology, "CONSUMERS", tuple(patient))
    await start()
    run_id = ids.new_id()
    first = asyncio.ensure_future(sim.ask("run-events", EventsReply, run_id=run_id, wait_s=20))
    await sim.submit(run_id)
    assert (await first).events[0].type == "RunSubmitted"
    await sim.say(e.RunCancelRequested(run_id=run_id, requested_by="me", reason=""))
    second = await sim.ask("run-events", EventsReply, run_id=run_id, after=1, wait_s=20)
    assert second.events[0].type == "RunCancelRequested"


async def test_unknown_things_are_named(start: Start, sim: Sim) -> None:
    await start()
    run_id = ids.new_id()
    for verb in ("run-get", "run-events", "run-logs", "run-files", "run-metrics"):
        with pytest.raises(NotFoundError) as caught:
            await sim.ask(verb, RunView, run_id=run_id)
        assert caught.value.code == "run.not_found"
        assert run_id in caught.value.message
    with pytest.raises(NotFoundError) as caught:
        await sim.read(run_id, wait_s=0.05)
    assert caught.value.code == "run.not_found"
    await sim.submit(run_id)
    await sim.run(run_id)
    with pytest.raises(NotFoundError) as caught:
        await sim.read(run_id, "logs/none", wait_s=0.05)
    assert caught.value.code == "log.not_found"
    waiting = asyncio.ensure_future(sim.read(run_id, wait_s=20))
    await sim.say(e.RunCanceled(run_id=run_id, experiment="mnist", attempt=0))
    with pytest.raises(NotFoundError):
        await asyncio.wait_for(waiting, 10)


async def test_patches(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit(tags={"a": "1", "b": None}, properties={"p": "1"})
    await sim.run(run_id)
    patch = {
        "tags": {"c": "3", "a": None},
        "remove_tags": ["b"],
        "properties": {"q": "2", "p": "1"},
    }
    view = await sim.ask("run-patch", RunView, run_id=run_id, patch={**patch, "display_name": "n"})
    assert (view.tags, view.properties) == ({"a": None, "c": "3"}, {"p": "1", "q": "2"})
    assert view.display_name == "n"
    with pytest.raises(ConflictError) as caught:
        await sim.ask(
            "run-patch",
            RunView,
            run_id=run_id,
            patch={"tags": {"z": "1"}, "properties": {"p": "2"}},
        )
    assert (caught.value.code, caught.value.field) == ("property.immutable", "properties.p")
    assert (await sim.run(run_id)).tags == {"a": None, "c": "3"}
    with pytest.raises(NotFoundError):
        await sim.ask("run-patch", RunView, run_id="unknown", patch={})


async def test_bad_messages_stop_nothing(start: Start, sim: Sim) -> None:
    await start()
    run_id = await sim.submit()
    publish = sim.bus.publish_raw
    await publish(
        "sw.evt.run.x.queued", b"{}", {"ce-id": "1", "ce-type": "stellwerk.run.queued.v1"}
    )
    await publish("sw.evt.run.x.dance", b"{}", {"ce-id": "2", "ce-type": "stellwerk.run.dance.v9"})
    await publish("sw.evt.run.x.none", b"\xff", {})
    await sim.say(
        queued("nobody"), queued(run_id), e.RunSubmitted(run_id=run_id, experiment="b", spec=spec())
    )
    huge = e.RunRetrying(run_id=run_id, attempt=10**30, reason="r", message="m", delay_s=1)
    await sim.say(e.AttemptLost(run_id=run_id, attempt=1, node_id="n"), huge)
    await publish("sw.log.UPPER.1.std", b"x", {"Sw-Offset": "0"})
    await publish(f"sw.log.{run_id}.1.std", b"x", {"Sw-Offset": "-1"})
    await publish(f"sw.log.{run_id}.1.std", b"x", {})
    await publish(f"sw.metric.{run_id}.1", b"[1,2", {})
    await publish(
        f"sw.metric.{run_id}.1", b'{"first":0,"records":[1,{"k":"metric"},{"k":"new"}]}', {}
    )
    await sim.until_running(run_id)
    await sim.write(run_id, LOG)
    await sim.log(
        run_id, 3, {"k": "metric", "n": "m", "t": "scalar", "v": "NaN", "s": None, "ts": 1}
    )
    assert await sim.follow(run_id, len(LOG)) == LOG
    seen = await sim.events(run_id, "RunStarted")
    assert [each.type for each in seen] == [
        "RunSubmitted",
        "RunPreparing",
        "RunQueued",
        "RunAssigned",
        "RunStarted",
    ]
    assert (await sim.run(run_id)).experiment == "mnist"

    async def logged() -> tuple[object, ...]:
        return (await sim.ask("run-metrics", MetricList, run_id=run_id)).points

    points = await wait_until(logged)
    assert [(p.value, p.sequence) for p in points] == [("NaN", 4)]


async def test_times_of_other_zones_are_the_same_moment(start: Start, sim: Sim) -> None:
    await start()
    run_id = ids.new_id()
    wrapped = sim.wrap(e.RunSubmitted(run_id=run_id, experiment="mnist", spec=spec()), passed_s=0)
    headers = {**wrapped.headers(), "ce-time": "2026-05-04T14:00:00+02:00"}
    await sim.bus.publish_raw(wrapped.event.subject(), wrapped.event.data(), headers)
    assert (await sim.run(run_id)).submitted_at == START
