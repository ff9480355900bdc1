"""Hostile bodies and hostile HTTP: a clear answer, quickly, and nothing happens."""

import asyncio
import json
import time
from collections.abc import AsyncIterator

import pytest
from gateway_setup import TOKEN, Gateway, GatewayFactory

from stellwerk_kit.bus import Bus

HEAD = f"POST /api/v1/runs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
JSON = {"Content-Type": "application/json"}


async def raw(gateway: Gateway, *parts: bytes, limit_s: float = 5.0) -> bytes:
    """Send bytes and read until the gateway closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    for part in parts:
        writer.write(part)
        await writer.drain()
    try:
        return await asyncio.wait_for(reader.read(), limit_s)
    finally:
        writer.close()


async def write_forever(writer: asyncio.StreamWriter, piece: bytes) -> None:
    async with asyncio.timeout(10):
        while True:
            writer.write(piece)
            await writer.drain()


async def stored_events(bus: Bus) -> int:
    return (await bus.js.stream_info("SW_EVENTS")).state.messages


UNCLEAR_JSON: list[bytes] = [
    b'{"experiment": "x", "experiment": "y"}',
    b'{"experiment": "x"} tail',
    b'\xef\xbb\xbf{"experiment": "x"}',
    '{"experiment": "x"}'.encode("utf-16"),
    rb'{"experiment": "\ud800"}',
    b'{"experiment": NaN}',
    b"[" * 40 + b"]" * 40,
    b"{",
]


async def test_what_is_no_clear_json_is_400(
    gateway: Gateway, bus: Bus, subtests: pytest.Subtests
) -> None:
    for body in UNCLEAR_JSON:
        with subtests.test(body=body):
            answer = await gateway.client.post("/runs", content=body, headers=JSON)
            assert (answer.status_code, answer.json()["code"]) == (400, "json.invalid")
            assert await stored_events(bus) == 0


async def test_the_offset_of_a_syntax_error_is_told(gateway: Gateway) -> None:
    answer = await gateway.client.post("/runs", content=b'{"a": 1} x', headers=JSON)
    assert "at offset 9" in answer.json()["detail"]


TOO_LARGE: list[int] = [1024 * 1024 + 1, 50 * 1024 * 1024]


async def test_a_large_body_is_refused_before_it_is_read(
    gateway: Gateway, subtests: pytest.Subtests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.limits.DRAIN_S", 0.1)
    for size in TOO_LARGE:
        with subtests.test(size=size):
            head = f"{HEAD}Content-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
            answer = await raw(gateway, head.encode(), b" " * 1000)
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"body.too_large" in answer


async def test_a_large_body_without_length_is_refused_while_it_comes(gateway: Gateway) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 65_536

    answer = await gateway.client.post("/runs", content=chunks(), headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body.too_large")


async def test_who_never_stops_sending_is_cut_off(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.limits.DRAIN_S", 0.2)
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{HEAD}Content-Length: 999999999\r\n\r\n".encode())
    with pytest.raises(ConnectionError):
        await write_forever(writer, b" " * 65_536)
    writer.close()


async def test_50_megabytes_from_a_plain_client_are_answered(gateway: Gateway) -> None:
    answer = await gateway.client.post("/runs", content=b" " * 50 * 1024 * 1024, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (413, "body.too_large")


async def test_manifests_may_be_larger(gateway: Gateway) -> None:
    rows = [{"path": f"f{n}", "size": 1, "sha256": "0" * 64} for n in range(21_000)]
    body = json.dumps({"manifest": {"entries": rows}})
    assert len(body) > 1024 * 1024
    answer = await gateway.client.post("/snapshots", content=body, headers=JSON)
    assert (answer.status_code, answer.json()["code"]) == (422, "snapshot.size")


async def test_what_the_bus_cannot_carry_is_413(gateway: Gateway) -> None:
    rows = [{"path": f"f{n}", "size": 1, "sha256": "0" * 64} for n in range(90_000)]
    answer = await gateway.client.post(
        "/datasets", json={"source": {"kind": "files", "entries": rows}}
    )
    assert (answer.status_code, answer.json()["code"]) == (413, "body.too_large")


MEDIA_TYPES: list[str] = ["text/plain", "application/x-www-form-urlencoded", ""]


async def test_other_media_types_are_415(gateway: Gateway, subtests: pytest.Subtests) -> None:
    for media_type in MEDIA_TYPES:
        with subtests.test(media_type=media_type):
            headers = {"Content-Type": media_type}
            answer = await gateway.client.post("/runs", content=b"{}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (415, "body.media_type")


async def test_a_body_that_stalls_is_408(gateway_factory: GatewayFactory) -> None:
    gateway = await gateway_factory(body_idle_s=0.2)
    head = f"{HEAD}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n"
    started = time.monotonic()
    answer = await raw(gateway, head.encode(), b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body.timeout" in answer
    assert time.monotonic() - started < 2


async def test_a_body_that_trickles_is_408(
    gateway_factory: GatewayFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gateway.limits.SLOWEST_BYTES_PER_S", 8 * 1024 * 1024)
    gateway = await gateway_factory(body_idle_s=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{HEAD}Content-Type: application/json\r\nContent-Length: 999\r\n\r\n".encode())
    answer = b""
    async with asyncio.timeout(5):
        while not answer:
            writer.write(b" ")
            try:
                answer = await asyncio.wait_for(reader.read(1000), 0.05)
            except TimeoutError:
                continue
    writer.close()
    assert answer.startswith(b"HTTP/1.1 408 ")


@pytest.mark.parametrize("start", [b"", b"GET / HTTP/1.1\r\nHost: local"])
async def test_a_head_that_stalls_is_closed(gateway_factory: GatewayFactory, start: bytes) -> None:
    gateway = await gateway_factory(header_s=0.2)
    assert (await raw(gateway, start)).startswith(b"HTTP/1.1 408 ")


async def test_a_second_head_on_a_connection_is_timed_too(gateway_factory: GatewayFactory) -> None:
    gateway = await gateway_factory(header_s=0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    async with asyncio.timeout(5):
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"</html>" in await reader.readuntil(b"</html>")
        writer.write(b"GET / HT")
        assert (await reader.read()).startswith(b"HTTP/1.1 408 ")
    writer.close()


BROKEN_FRAMING: list[bytes] = [
    b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    b"Content-Length: -1\r\n\r\n",
    b"Bad Header: x\r\n\r\n",
]


async def test_broken_framing_is_400_and_closes(
    gateway: Gateway, bus: Bus, subtests: pytest.Subtests
) -> None:
    for rest in BROKEN_FRAMING:
        with subtests.test(rest=rest):
            answer = await raw(
                gateway, HEAD.encode() + b"Content-Type: application/json\r\n" + rest
            )
            assert answer.startswith(b"HTTP/1.1 400 ")
            assert await stored_events(bus) == 0


async def test_an_endless_head_is_cut_off(gateway: Gateway) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(HEAD.encode() + b"X: ")
    with pytest.raises(ConnectionError):
        await write_forever(writer, b"y" * 65_536)
    writer.close()


async def test_a_client_that_hangs_up_leaves_no_trace(gateway: Gateway, bus: Bus) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(f"{HEAD}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
    await writer.drain()
    writer.close()
    await writer.wait_closed()
    assert (await gateway.client.get("/info")).status_code == 200
    assert await stored_events(bus) == 0


DEAD_ENDS: list[tuple[str, str, int, str]] = [
    ("GET", "/api/v1/nothing", 404, "route.not_found"),
    ("GET", "/api/v1/runs/", 404, "route.not_found"),
    ("PUT", "/api/v1/runs", 405, "method.not_allowed"),
    ("GET", "/api/v1/runs/NO%00SUCH", 404, "run.not_found"),
    ("GET", "/api/v1/runs/..%2f..%2fetc", 404, "route.not_found"),
    ("GET", "/api/v1/compute/Not_A_Name", 404, "compute.not_found"),
    ("GET", "/api/v1/models/m?version=0", 422, "field.range"),
    ("GET", "/api/v1/runs?limit=0", 422, "field.range"),
    ("GET", "/api/v1/runs?limit=-1", 422, "field.range"),
    ("GET", "/api/v1/runs?limit=1000000000", 422, "field.range"),
    ("GET", "/api/v1/runs?sort=state;drop", 422, "field.unknown"),
    ("GET", "/api/v1/runs?tag=a&tag=b", 422, "field.too_long"),
    ("GET", "/api/v1/runs?status=%27%20or%201=1", 422, "field.invalid"),
]


async def test_addresses_that_lead_nowhere(gateway: Gateway, subtests: pytest.Subtests) -> None:
    for method, path, status, code in DEAD_ENDS:
        with subtests.test(method=method):
            answer = await gateway.client.request(method, f"{gateway.url}{path}")
            assert (answer.status_code, answer.json()["code"]) == (status, code)
            assert answer.headers["content-type"] == "application/problem+json"
