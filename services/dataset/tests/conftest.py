"""A real HTTP server whose answers the tests write."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore

sys.path.insert(0, str(Path(__file__).parent))

from dataset_client import Client

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]
CERTIFICATE = Path(__file__).parent / "data" / "files-lab.pem"


@dataclass
class WebServer:
    """``pages`` maps a path to bytes, or to a function that writes; unknown paths answer 404."""

    port: int = 0
    pages: dict[str, bytes | Answer] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def authority(self) -> str:
        return f"127.0.0.1:{self.port}"

    def url(self, path: str) -> str:
        return f"http://{self.authority}{path}"

    def count(self, path: str) -> int:
        return sum(1 for seen, _ in self.requests if seen == path)

    @staticmethod
    def page(status: int = 200, body: bytes = b"", **headers: str) -> bytes:
        """A whole answer; header names with underscores for hyphens."""
        head = {"content_length": str(len(body)), **headers}
        lines = "".join(f"{key.replace('_', '-')}: {text}\r\n" for key, text in head.items())
        return f"HTTP/1.1 {status} x\r\n{lines}\r\n".encode() + body

    def redirect(self, path: str, to: str) -> str:
        self.pages[path] = self.page(302, location=to)
        return self.url(path)

    def held(self, path: str, body: bytes) -> str:
        """A page whose second half comes only after ``release``."""

        async def answer(writer: asyncio.StreamWriter) -> None:
            whole = self.page(body=body)
            writer.write(whole[: -len(body) // 2])
            await writer.drain()
            await self.release.wait()
            writer.write(whole[-len(body) // 2 :])

        self.pages[path] = answer
        return self.url(path)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            first, *lines = head.strip().split("\r\n")
            path = first.split(" ")[1]
            pairs = (line.split(": ", 1) for line in lines)
            self.requests.append((path, {key.lower(): text for key, text in pairs}))
            page = self.pages.get(path, self.page(404))
            if isinstance(page, bytes):
                writer.write(page)
            else:
                await page(writer)
            await writer.drain()
        writer.close()
        with suppress(ConnectionError, ssl.SSLError):
            await writer.wait_closed()


async def _running(context: ssl.SSLContext | None) -> AsyncIterator[WebServer]:
    web = WebServer()
    listener = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=context)
    web.port = listener.sockets[0].getsockname()[1]
    yield web
    web.release.set()
    listener.close()
    await listener.wait_closed()


@pytest_asyncio.fixture
async def web() -> AsyncIterator[WebServer]:
    async for server in _running(None):
        yield server


@pytest_asyncio.fixture
async def tls_web() -> AsyncIterator[WebServer]:
    """The same over https, with a certificate for ``files.lab``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    async for server in _running(context):
        yield server


@pytest.fixture
def certificate() -> Path:
    return CERTIFICATE


@pytest.fixture
def client(bus: Bus, objects: ObjectStore) -> Client:
    return Client(bus, objects)
