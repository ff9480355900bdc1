"""Streams: events and logs arrive as they happen, resume where they broke, end when it is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from gateway_history import LOG, Projection
from gateway_setup import Gateway, GatewayFactory, Services

from stellwerk.api import BuildView
from stellwerk_gateway.streams import sse
from stellwerk_kit.rpc import RawReply
from stellwerk_kit.testing import wait_until


@pytest_asyncio.fixture
async def run(services: Services) -> Projection:
    projection = Projection()
    await services.on("history", "run-get", projection.run_get)
    await services.on("history", "run-events", projection.run_events)
    await services.on("history", "log-read", projection.log_read)
    await services.on("history", "run-logs", projection.run_logs)
    return projection


async def collect(response: httpx2.Response, into: bytearray) -> None:
    async for chunk in response.aiter_raw():
        into.extend(chunk)


def sequences(text: bytes) -> list[int]:
    return [
        json.loads(line[6:])["sequence"]
        for line in text.decode().splitlines()
        if line.startswith("data: ")
    ]


async def test_events_arrive_as_they_happen_and_the_stream_ends_with_the_run(
    gateway: Gateway, run: Projection
) -> None:
    await run.happen("Queued")
    seen = bytearray()
    async with (
        gateway.client.stream("GET", "/runs/abc/events") as response,
        asyncio.TaskGroup() as tasks,
    ):
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["cache-control"] == "no-store"
        tasks.create_task(collect(response, seen))
        for status in ("Starting", "Running", "Finalizing", "Completed"):
            count = len(run.events)
            await wait_until(lambda: len(sequences(bytes(seen))) == count, 5)  # noqa: B023
            await run.happen(status)
    assert sequences(bytes(seen)) == [1, 2, 3, 4, 5]
    assert b"\nid: 5\ndata: {" in seen


@pytest.mark.parametrize(
    ("query", "headers"),
    [("?after=2", {}), ("", {"Last-Event-ID": "2"}), ("?after=1", {"Last-Event-ID": "2"})],
)
async def test_events_resume_after_the_last_one_seen(
    gateway: Gateway, run: Projection, query: str, headers: dict[str, str]
) -> None:
    for status in ("Queued", "Running", "Finalizing", "Failed"):
        await run.happen(status)
    answer = await gateway.client.get(f"/runs/abc/events{query}", headers=headers)
    assert sequences(answer.content) == [3, 4]
    nothing = await gateway.client.get("/runs/abc/events?after=4")
    assert (nothing.status_code, sequences(nothing.content)) == (200, [])


BAD_EVENT_IDS: list[str] = ["x", "-1", "1.5"]


async def test_a_bad_event_id_is_422(gateway: Gateway, subtests: pytest.Subtests) -> None:
    for last in BAD_EVENT_IDS:
        with subtests.test(last=last):
            answer = await gateway.client.get("/runs/abc/events", headers={"Last-Event-ID": last})
            assert (answer.status_code, answer.json()["field"]) == (422, "header.last-event-id")


async def test_a_quiet_stream_has_heartbeats(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.streams.WAIT_S", 0.05)
    seen = bytearray()
    async with (
        gateway.client.stream("GET", "/runs/abc/events") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        await wait_until(lambda: seen.count(b": still here\n\n") >= 3, 5)
        await run.happen("Canceled")
    assert sequences(bytes(seen)) == [1]


async def test_events_of_a_run_that_history_has_not_seen_yet(
    gateway: Gateway, run: Projection
) -> None:
    run.known = False
    spec = {"source": {"inline": {"a.py": "1"}}, "script": "a.py"}
    submitted = await gateway.client.post("/runs", json={"experiment": "e", "spec": spec})
    run_id = submitted.json()["run_id"]
    seen = bytearray()
    async with (
        gateway.client.stream("GET", f"/runs/{run_id}/events") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        await run.happen("Completed")
        run.known = True
    assert sequences(bytes(seen)) == [1]
    run.known = False
    unknown = await gateway.client.get("/runs/abc/events")
    assert (unknown.status_code, unknown.json()["code"]) == (404, "run.not_found")


async def test_a_short_outage_of_history_is_waited_out(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.streams.RETRY_S", 0.02)
    monkeypatch.setattr("stellwerk_gateway.streams.WAIT_S", 0.05)
    seen = bytearray()
    async with (
        gateway.client.stream("GET", "/runs/abc/events") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        run.away = True
        before = len(seen)
        await wait_until(lambda: len(seen) > before + 50, 5)
        await run.happen("Completed")
        run.away = False
    assert sequences(bytes(seen)) == [1]
    run.away = True
    assert (await gateway.client.get("/runs/abc/events")).status_code == 503


async def test_a_long_outage_breaks_the_stream_off_so_that_the_client_resumes(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.streams.RETRY_S", 0.02)
    monkeypatch.setattr("stellwerk_gateway.streams.OUTAGE_S", 0.05)
    monkeypatch.setattr("stellwerk_gateway.streams.WAIT_S", 0.05)
    async with gateway.client.stream("GET", "/runs/abc/events") as response:
        run.away = True
        with pytest.raises(httpx2.RemoteProtocolError):
            await collect(response, bytearray())


async def test_a_client_that_leaves_ends_the_work_at_once(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = asyncio.Event()

    async def watched(*arguments: Any) -> AsyncIterator[bytes]:
        try:
            async for chunk in sse(*arguments):
                yield chunk
        finally:
            ended.set()

    monkeypatch.setattr("stellwerk_gateway.routes.runs.sse", watched)
    async with gateway.client.stream("GET", "/runs/abc/events"):
        await wait_until(lambda: run.waiting == 1, 5)
    async with asyncio.timeout(5):  # its long poll would last 15 s
        await ended.wait()


async def test_open_streams_do_not_delay_the_end_of_the_gateway(
    gateway_factory: GatewayFactory, run: Projection
) -> None:
    gateway = await gateway_factory()
    async with gateway.client.stream("GET", "/runs/abc/events") as response:
        await wait_until(lambda: run.waiting == 1, 5)
        async with asyncio.timeout(3):
            await gateway.runtime.stop()
        with pytest.raises(httpx2.RemoteProtocolError):
            await collect(response, bytearray())


async def test_a_log_is_followed_until_it_is_closed_and_the_run_over(
    gateway: Gateway, run: Projection
) -> None:
    await run.write(b"one\n")
    seen = bytearray()
    async with (
        gateway.client.stream("GET", f"/runs/abc/logs/{LOG}?follow=true") as response,
        asyncio.TaskGroup() as tasks,
    ):
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        tasks.create_task(collect(response, seen))
        await wait_until(lambda: seen == b"one\n", 5)
        await run.write(b"\x00\xff two")
        await wait_until(lambda: seen == b"one\n\x00\xff two", 5)
        await run.happen("Finalizing")
        await run.write(b" end", close=True)
        await wait_until(lambda: seen.endswith(b" end"), 5)
        await run.happen("Completed")
    assert seen == b"one\n\x00\xff two end"


async def test_a_log_resumes_at_an_offset_and_ends_at_once_where_all_is_over(
    gateway: Gateway, run: Projection
) -> None:
    big = bytes(range(256)) * 4096
    await run.write(big, close=True)
    await run.happen("Completed")
    for query in ("?follow=true&offset=1000000", "?offset=1000000"):
        answer = await gateway.client.get(f"/runs/abc/logs/{LOG}{query}")
        assert answer.content == big[1_000_000:]
    whole = await gateway.client.get(f"/runs/abc/logs/{LOG}")
    assert whole.content == big, "longer than one piece"
    beyond = await gateway.client.get(f"/runs/abc/logs/{LOG}?follow=1&offset=99999999")
    assert beyond.content == b""


async def test_a_log_that_does_not_exist_yet_is_waited_for_while_the_run_lives(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.logs.MISSING_WAIT_S", 0.02)
    monkeypatch.setattr("stellwerk_gateway.logs.WAIT_S", 0.05)
    seen = bytearray()
    async with (
        gateway.client.stream("GET", f"/runs/abc/logs/{LOG}?follow=true") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        await run.happen("Starting")
        await run.write(b"late", close=True)
        await wait_until(lambda: seen == b"late", 5)
        await run.happen("Completed")
    for path in (f"/runs/abc/logs/{LOG}x?follow=true", f"/runs/abc/logs/{LOG}x"):
        missing = await gateway.client.get(path)
        assert (missing.status_code, missing.json()["code"]) == (404, "log.not_found")


async def test_a_run_that_ends_without_the_log_ends_the_stream(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.logs.WAIT_S", 0.05)
    await run.write(b"part")  # never closed: its executor is gone
    seen = bytearray()
    async with (
        gateway.client.stream("GET", f"/runs/abc/logs/{LOG}?follow=true") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        await wait_until(lambda: seen == b"part", 5)
        await run.happen("Failed")
    assert seen == b"part"


async def test_a_followed_log_ends_with_its_attempt(
    gateway: Gateway, run: Projection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.logs.WAIT_S", 0.05)
    await run.write(b"first")
    seen = bytearray()
    async with (
        gateway.client.stream("GET", f"/runs/abc/logs/{LOG}?follow=true") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        await wait_until(lambda: seen == b"first", 5)
        run.logs[LOG] += b" to the end"  # nobody is woken: the reader is slower than the retry
        await run.try_again()
        await run.write(b"The second attempt's log")
    assert seen == b"first to the end"
    for query in ("?attempt=1&offset=5", "?attempt=1&offset=5&follow=true"):
        rest = await gateway.client.get(f"/runs/abc/logs/{LOG}{query}")
        assert rest.content == b" to the end"
    for query in ("?offset=5", "?attempt=2&offset=5"):
        rest = await gateway.client.get(f"/runs/abc/logs/{LOG}{query}")
        assert rest.content == b"econd attempt's log"


async def test_a_build_log_is_followed_until_it_is_closed(
    gateway: Gateway, services: Services, run: Projection
) -> None:
    state = {"now": "building"}

    async def build_get(request: dict[str, Any]) -> BuildView:
        return BuildView(env_id=request["env_id"], build=3, state=state["now"])

    async def read(request: dict[str, Any]) -> RawReply:
        assert (request["env_id"], request["build"]) == ("e1", 3)
        return await run.log_read({**request, "path": "build"})

    await services.on("environment-build", "build-get", build_get)
    await services.on("history", "build-log-read", read)
    await run.write(b"resolving\n", "build")
    seen = bytearray()
    async with (
        gateway.client.stream("GET", "/builds/e1/log?follow=true") as response,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(collect(response, seen))
        await wait_until(lambda: seen == b"resolving\n", 5)
        await run.write(b"done\n", "build", close=True)
    assert seen == b"resolving\ndone\n"
    assert (await gateway.client.get("/builds/e1/log?offset=10")).content == b"done\n"


async def test_logs_are_listed_and_their_paths_checked(gateway: Gateway, run: Projection) -> None:
    await run.write(b"x")
    answer = await gateway.client.get("/runs/abc/logs")
    assert answer.json() == {"logs": [{"path": LOG, "bytes": 1, "closed": False, "sha256": None}]}
    for path in ("..%2f..%2fetc%2fpasswd", "%2fetc%2fpasswd", "a%5cb", "a%00b", "a%2f%2fb"):
        refused = await gateway.client.get(f"/runs/abc/logs/{path}")
        assert (refused.status_code, refused.json()["code"]) == (422, "path.invalid"), path
    literal = await gateway.client.get("/runs/abc/logs/%252e%252e%252fetc")
    assert literal.status_code == 404
