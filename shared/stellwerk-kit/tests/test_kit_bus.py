"""The probes of the bus: heartbeats, retries, dead letters, restarts, order."""

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import BaseModel
from sqlalchemy import Column, Integer, MetaData, String, Table, insert, select

from stellwerk.errors import (
    ConflictError,
    NotFoundError,
    ProtocolError,
    ServiceUnavailableError,
)
from stellwerk.events import MAX_EVENT_BYTES, Envelope, RunCancelRequested, RunSubmitted
from stellwerk.runspec import RunSpec
from stellwerk_kit import topology
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.consumer import Delivery, Reject, Retry
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.service import Runtime
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import NatsServer, wait_until
from stellwerk_kit.voice import Voice


def submission(run_id: str, script: str = "a.py") -> RunSubmitted:
    spec = RunSpec.model_validate({"source": {"inline": {script: "print(1)"}}, "script": script})
    return RunSubmitted(run_id=run_id, experiment="e", spec=spec)


def envelope(event: Any) -> Envelope:
    return Envelope.wrap(event, source="/test", time=SystemClock().now())


async def test_a_voice_tells_whether_it_was_heard(bus: Bus, nats_server: NatsServer) -> None:
    voice = Voice(bus, SystemClock(), "/test")
    said = [await voice.say(submission("r1"), causation_id="c") for _ in range(2)]
    assert [each and (each.sequence, each.duplicate) for each in said] == [(1, False), (1, True)]
    assert (await bus.js.stream_info("SW_EVENTS")).state.messages == 1
    nats_server.kill()
    try:
        assert not await voice.say(submission("r2"))
    finally:
        nats_server.start()


async def test_a_voice_does_not_say_what_no_reader_takes(bus: Bus) -> None:
    """The broker would: its limit leaves room for headers."""
    event = submission("r1")
    more = MAX_EVENT_BYTES + 1 - len(event.data())
    large = event.model_copy(update={"submitted_by": "x" * (more + 2)})
    with pytest.raises(ProtocolError, match=r"submitted.v1 is 262145 bytes; the limit is 262144"):
        await Voice(bus, SystemClock(), "/test").say(large)
    assert (await bus.js.stream_info("SW_EVENTS")).state.messages == 0


async def test_publish_is_idempotent_and_first_only(bus: Bus) -> None:
    first = await bus.publish(envelope(submission("r1")), expect_first=True)
    again = await bus.publish(envelope(submission("r1")), expect_first=True)
    assert not first.duplicate
    assert again.duplicate
    with pytest.raises(ConflictError, match="another content"):
        await bus.publish(envelope(submission("r1", "b.py")), expect_first=True)


@pytest.mark.parametrize("answer", [b"", b"{", b"{}", b"[]", b"1", b'{"error":{}}', b'{"error":1}'])
async def test_an_acknowledgement_that_is_none_is_told(bus: Bus, answer: bytes) -> None:
    await bus.client.listen("asked", lambda message: message.respond(answer))
    await bus.flush()
    told: list[Exception | None] = []
    bus.store("asked", b"", {}, told.append)
    await wait_until(lambda: told)
    assert isinstance(told[0], ServiceUnavailableError)
    with pytest.raises(ServiceUnavailableError, match="cannot be read"):
        await bus.publish_raw("asked", b"", {})


async def test_handler_outcomes(runtime_factory: Any, bus: Bus) -> None:
    calls: list[str] = []
    times: dict[str, datetime] = {}

    async def handle(received: Envelope) -> None:
        run = received.event.aggregate_id
        calls.append(run)
        times[run] = received.time
        if run == "retry" and calls.count(run) == 1:
            raise Retry("not yet", after_s=0.05)
        if run == "reject":
            raise Reject("never")

    async def build(runtime: Runtime[Any]) -> None:
        runtime.consume("scheduler-facts", {RunSubmitted: handle})

    await runtime_factory("scheduler", ServiceSettings, build)
    for run in ("good", "retry", "reject"):
        await bus.publish(envelope(submission(run)))
    await bus.js.publish(
        "sw.evt.submission.bad.submitted",
        b"{not json",
        headers={"ce-type": RunSubmitted.type_name(), "ce-id": "x"},
    )
    await bus.js.publish(
        "sw.evt.submission.other.submitted",
        envelope(submission("good")).event.data(),
        headers=envelope(submission("good")).headers() | {"Nats-Msg-Id": "forged"},
    )

    timeless = envelope(submission("timeless"))
    headers = {name: text for name, text in timeless.headers().items() if name != "ce-time"}
    await bus.js.publish(timeless.event.subject(), timeless.event.data(), headers=headers)

    async def dead() -> int:
        return int((await bus.js.stream_info("SW_DEAD")).state.messages)

    await wait_until(lambda: calls.count("retry") == 2)
    await wait_until(lambda: _equals(dead(), 3))
    assert calls.count("good") == 1
    assert calls.count("reject") == 1
    await wait_until(lambda: "timeless" in times)
    assert abs(times["timeless"] - datetime.now(UTC)) < timedelta(minutes=1)  # when it was stored
    info = await bus.js.consumer_info("SW_EVENTS", "scheduler-facts")
    assert info.num_ack_pending == 0


async def _equals(value: Any, expected: int) -> bool:
    return bool(await value == expected)


async def test_long_handler_runs_once(
    runtime_factory: Any, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = topology.ConsumerSpec("slow", "SW_EVENTS", ("sw.evt.submission.*.*",), ack_wait_s=0.6)
    started: list[str] = []
    finished = asyncio.Event()

    async def handle(received: Envelope) -> None:
        started.append(received.id)
        await asyncio.sleep(2.0)  # longer than three times the acknowledgement time
        finished.set()

    async def build(runtime: Runtime[Any]) -> None:
        runtime.consume(spec, {RunSubmitted: handle})

    await runtime_factory("slow", ServiceSettings, build)
    await bus.publish(envelope(submission("r1")))
    await asyncio.wait_for(finished.wait(), 10)
    await wait_until(lambda: _no_pending(bus, "slow"))
    assert len(started) == 1


async def _no_pending(bus: Bus, consumer: str) -> bool:
    info = await bus.js.consumer_info("SW_EVENTS", consumer)
    return info.num_ack_pending == 0 and info.num_pending == 0


class Ask(BaseModel):
    name: str


async def test_rpc_carries_errors_and_does_not_block(runtime_factory: Any, bus: Bus) -> None:
    gate = asyncio.Event()

    async def answer(request: Ask) -> Ask:
        if request.name == "wait":
            await gate.wait()
        if request.name == "missing":
            raise NotFoundError("no such thing", code="thing.not_found", field="name")
        if request.name == "crash":
            raise RuntimeError("secret detail")
        return Ask(name=request.name.upper())

    async def build(runtime: Runtime[Any]) -> None:
        runtime.rpc("ask", Ask, answer)

    await runtime_factory("history", ServiceSettings, build)
    waiting = asyncio.ensure_future(bus.call("history", "ask", Ask(name="wait"), Ask))
    assert (await bus.call("history", "ask", Ask(name="hello"), Ask)).name == "HELLO"
    gate.set()
    assert (await waiting).name == "WAIT"
    with pytest.raises(NotFoundError, match="no such thing") as caught:
        await bus.call("history", "ask", Ask(name="missing"), Ask)
    assert (caught.value.code, caught.value.field) == ("thing.not_found", "name")
    with pytest.raises(Exception, match="internal error") as crashed:
        await bus.call("history", "ask", Ask(name="crash"), Ask)
    assert "secret" not in str(crashed.value)
    with pytest.raises(ServiceUnavailableError, match="not there"):
        await bus.call("dataset", "nobody", Ask(name="x"), Ask)


def _store(metadata: MetaData) -> Table:
    return Table(
        "seen", metadata, Column("id", Integer, primary_key=True), Column("run", String(40))
    )


async def test_effects_survive_broker_kills_exactly_once(
    runtime_factory: Any, bus: Bus, nats_server: NatsServer
) -> None:
    metadata = MetaData()
    seen = _store(metadata)
    databases: list[Database] = []

    async def build(runtime: Runtime[Any]) -> None:
        db = await runtime.database(metadata)
        databases.append(db)

        async def handle(received: Envelope) -> None:
            def work(tx: Tx) -> None:
                if tx.first_time("scheduler-facts", received.id):
                    tx.conn.execute(insert(seen).values(run=received.event.aggregate_id))
                    tx.emit(RunCancelRequested(run_id=received.event.aggregate_id))

            await db.write(work)

        runtime.consume("scheduler-facts", {RunSubmitted: handle})

    await runtime_factory("scheduler", ServiceSettings, build)
    runs = [f"run-{number}" for number in range(150)]
    for number, run in enumerate(runs):
        if number in {40, 90}:
            nats_server.kill()
            nats_server.start()
        event = envelope(submission(run))
        await bus.publish_until_stored(event.event.subject(), event.event.data(), event.headers())

    async def effects() -> list[str]:
        return await databases[0].read(lambda conn: [row.run for row in conn.execute(select(seen))])

    async def complete() -> bool:
        return len(await effects()) >= len(runs)

    await wait_until(complete, 30)
    assert sorted(await effects()) == sorted(runs)
    await wait_until(lambda: _cancels(bus, len(runs)), 20)


async def _cancels(bus: Bus, expected: int) -> bool:
    info = await bus.js.stream_info(
        "SW_EVENTS", subjects_filter="sw.evt.submission.*.cancel-requested"
    )
    return len(info.state.subjects or {}) == expected


async def test_write_failure_undoes_only_itself(store_url: str) -> None:
    metadata = MetaData()
    seen = _store(metadata)
    db = Database(store_url, metadata, clock=SystemClock(), source="/t")
    await db.start()

    def work(number: int) -> Any:
        def write(tx: Tx) -> int:
            tx.conn.execute(insert(seen).values(run=str(number)))
            if number % 3 == 0:
                raise ValueError(number)
            return number

        return write

    results = await asyncio.gather(*(db.write(work(n)) for n in range(30)), return_exceptions=True)
    rows = await db.read(lambda conn: [row.run for row in conn.execute(select(seen))])
    assert sorted(map(int, rows)) == [n for n in range(30) if n % 3]
    assert sum(isinstance(result, ValueError) for result in results) == 10
    await db.close()


async def test_what_shall_last_waits_for_the_disk_and_joins_no_commit_that_does_not(
    store_url: str,
) -> None:
    db = Database(store_url, MetaData(), clock=SystemClock(), source="/t")
    await db.start()
    begun, go_on = threading.Event(), threading.Event()

    def flush(tx: Tx) -> str:
        if tx.conn.dialect.name == "sqlite":
            return str(tx.conn.exec_driver_sql("PRAGMA synchronous").scalar())
        return {"on": "2", "off": "1"}[
            str(tx.conn.exec_driver_sql("SHOW synchronous_commit").scalar())
        ]

    def held(tx: Tx) -> str:
        begun.set()
        go_on.wait(30)
        return flush(tx)

    async def levels(*lasting: bool) -> list[str]:
        """Of a write that holds the thread up, and of those that gather behind it."""
        begun.clear()
        go_on.clear()
        first = asyncio.ensure_future(db.write(held, lasting=lasting[0]))
        await asyncio.to_thread(begun.wait, 30)
        others = [asyncio.ensure_future(db.write(flush, lasting=each)) for each in lasting[1:]]
        await asyncio.sleep(0)
        go_on.set()
        return await asyncio.gather(first, *others)

    assert await levels(False, False, True, False) == ["1", "1", "2", "2"]
    assert await levels(True, False, True) == ["2", "2", "2"]
    assert await levels(False) == ["1"]
    await db.close()


async def test_outbox_publishes_what_a_crash_left(
    runtime_factory: Any, bus: Bus, store_url: str
) -> None:
    metadata = MetaData()
    db = Database(store_url, metadata, clock=SystemClock(), source="/t")
    await db.start()
    await db.write(lambda tx: tx.emit(RunCancelRequested(run_id="left")) and None)
    await db.close()

    async def build(runtime: Runtime[Any]) -> None:
        await runtime.database(MetaData())

    await runtime_factory("scheduler", ServiceSettings, build, database_url=store_url)
    await wait_until(lambda: _cancels(bus, 1))


async def test_batches_keep_order_and_repeat_until_handled(runtime_factory: Any, bus: Bus) -> None:
    got: list[str] = []
    failures = iter([True, False])
    stored: list[datetime | None] = []

    async def handle(batch: list[Delivery]) -> None:
        if next(failures, False):
            raise RuntimeError("try again")
        stored.extend(delivery.stored_at for delivery in batch)
        got.extend(delivery.decode().event.aggregate_id for delivery in batch)

    async def build(runtime: Runtime[Any]) -> None:
        runtime.consume_batch("history-events", handle)

    for number in range(100):
        await bus.publish(envelope(submission(f"r{number}")))
    await runtime_factory("history", ServiceSettings, build)
    await wait_until(lambda: len(got) >= 100)
    assert got == [f"r{number}" for number in range(100)]
    assert stored == sorted(each for each in stored if each is not None)


async def test_topology_plan_is_empty_after_apply(bus: Bus) -> None:
    assert (await topology.plan(bus.js)).empty
    changed = topology.ConsumerSpec("dataset-runs", "SW_EVENTS", ("sw.evt.run.*.queued",))
    plan = await topology.plan(bus.js, (changed,))
    assert plan.changed == ("dataset-runs",)
