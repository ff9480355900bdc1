"""The mount server against any process of this machine: strangers keep nothing open for long."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from stellwerk.manifest import Manifest
from stellwerk_gpu_executor import mount_server
from stellwerk_gpu_executor.cache import BlobCache
from stellwerk_gpu_executor.mount_server import MountServer
from stellwerk_gpu_executor.parts import Parts
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Connect = Callable[[], Awaitable[Connection]]
LIMIT_S = 10.0


@pytest.fixture
async def server(objects: ObjectStore, tmp_path: Path) -> AsyncIterator[MountServer]:
    tasks = TaskOwner()
    cache = BlobCache(objects, tmp_path / "cache", 1 << 20)
    found = MountServer(Parts(objects, cache, tmp_path / "parts", tasks), tmp_path / "port")
    await found.start()
    found.show("token", Manifest(entries=()))
    try:
        yield found
    finally:
        await found.close()
        await tasks.close()


@pytest.fixture
async def connect(server: MountServer) -> AsyncIterator[Connect]:
    made: list[Connection] = []

    async def one() -> Connection:
        made.append(await asyncio.open_connection("127.0.0.1", server.port))
        return made[-1]

    yield one
    for _, writer in made:
        writer.close()
        with suppress(ConnectionError):
            await writer.wait_closed()


async def ask(connection: Connection, token: str) -> str:
    reader, writer = connection
    writer.write(
        f"PROPFIND / HTTP/1.1\r\nDepth: 0\r\nAuthorization: Bearer {token}\r\n\r\n".encode()
    )
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    length = int(head.lower().partition("content-length: ")[2].partition("\r\n")[0])
    await reader.readexactly(length)
    return head.split(" ")[1]


async def is_closed(connection: Connection) -> bool:
    """Wait for the server's end of it."""
    try:
        async with asyncio.timeout(LIMIT_S):
            return await connection[0].read() == b""
    except ConnectionError:
        return True
    except TimeoutError:
        return False


async def test_a_stranger_is_answered_once(
    server: MountServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    early = await connect()
    assert await ask(early, "of a mount not taken up yet") == "503"  # rclone tries again
    assert await is_closed(early)
    monkeypatch.setattr(server, "_all_known_at", 0.0)
    stranger = await connect()
    assert await ask(stranger, "guess") == "401"
    assert await is_closed(stranger)
    known = await connect()
    assert [await ask(known, "token") for _ in range(3)] == ["207"] * 3
    server.hide("token")
    assert await ask(known, "token") == "401"
    assert await is_closed(known)


async def test_a_connection_that_says_nothing_is_closed(
    server: MountServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_server, "FIRST_S", 0.5)
    known, silent = await connect(), await connect()
    assert await ask(known, "token") == "207"
    silent[1].write(b"GET / HTTP/1.1\r\n")
    assert await is_closed(silent)
    assert await ask(known, "token") == "207"  # may rest between its requests


async def test_many_strangers_keep_nobody_out(server: MountServer, connect: Connect) -> None:
    known = await connect()
    assert await ask(known, "token") == "207"
    strangers = [await connect() for _ in range(mount_server.STRANGERS + 5)]
    assert all([await is_closed(each) for each in strangers[:5]])
    assert len(server._connections) == mount_server.STRANGERS + 1
    late = await connect()
    assert (await ask(known, "token"), await ask(late, "token")) == ("207", "207")


async def test_one_mount_has_its_share(
    server: MountServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount_server, "EACH", 2)
    server.show("other", Manifest(entries=()))
    first, second, third, other = [await connect() for _ in range(4)]
    assert [await ask(each, "token") for each in (first, second, third)] == ["207", "207", "503"]
    assert await is_closed(third)
    assert await ask(other, "other") == "207"
    first[1].close()
    await wait_until(lambda: len(server._connections) == 2)
    assert await ask(await connect(), "token") == "207"
