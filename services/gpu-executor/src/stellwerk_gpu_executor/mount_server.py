"""Serves mounted datasets to rclone on loopback: the node cache, filled as it is read.

Each mount has a token of its own and sees one manifest. Keys of the object store stay in this
process. The port is kept over restarts, so that mounts of runs that go on find us again. Every run
reaches loopback: connections are few and short until they have shown a token.
"""

import asyncio
import hmac
import os
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import structlog

from stellwerk.errors import NotFoundError, ServiceUnavailableError, StellwerkError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_gpu_executor.parts import Parts
from stellwerk_gpu_executor.webdav import LONG_AGO, Request, RequestError, Tree, head

HEAD_BYTES = 64 * 1024
CHUNK = 1024 * 1024
FIRST_S = 10.0
"""A connection's first request has to be here after so long."""
STRANGERS = 64
"""Connections without a request yet; one more takes the place of the oldest."""
TAKING_UP_S = 15.0
"""So long after the start a token may be of a mount that is about to be taken up again."""
EACH = 256
"""Connections of one mount; rclone tries again when it is told 503."""
XML = {"Content-Type": "application/xml; charset=utf-8"}

log = structlog.get_logger()


class MountServer:
    """One server for all mounts of this executor."""

    def __init__(self, parts: Parts, port_file: Path) -> None:
        self._parts, self._port_file = parts, port_file
        self._trees: dict[str, Tree] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
        self._strangers: dict[asyncio.StreamWriter, None] = {}
        self._of: Counter[str] = Counter()
        self._all_known_at = 0.0
        self.port = 0

    async def start(self) -> None:
        """Listen, on the port of the last time if it is free."""
        try:
            wanted = int(self._port_file.read_text())
        except (OSError, ValueError):
            wanted = 0
        for port in (wanted, 0):
            with suppress(OSError):
                self._server = await asyncio.start_server(
                    self._serve, "127.0.0.1", port, limit=HEAD_BYTES
                )
                break
        if self._server is None:
            raise OSError("no loopback port can be had for mounts")
        self._all_known_at = time.monotonic() + TAKING_UP_S
        self.port = self._server.sockets[0].getsockname()[1]
        self._port_file.write_text(str(self.port))

    async def close(self) -> None:
        """Stop listening; mounts wait for the next start."""
        if self._server is not None:
            self._server.close()
            for writer in self._connections:
                writer.transport.abort()

    def show(self, token: str, manifest: Manifest) -> None:
        """Serve ``manifest`` to who has ``token``."""
        self._trees[token] = Tree.of(manifest)
        self._parts.ahead(manifest)

    def hide(self, token: str) -> None:
        """Serve it no longer."""
        self._trees.pop(token, None)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections.add(writer)
        self._strangers[writer] = None
        if len(self._strangers) > STRANGERS:
            oldest = next(iter(self._strangers))
            del self._strangers[oldest]
            oldest.transport.abort()
        token = ""
        try:
            async with asyncio.timeout(FIRST_S):
                request = await _request(reader)
            self._strangers.pop(writer, None)
            token = self._token(request)
            if token:
                self._of[token] += 1
            while await self._answer(request, writer):
                request = await _request(reader)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, RequestError):
            pass
        finally:
            self._strangers.pop(writer, None)
            self._connections.discard(writer)
            if token:
                self._of.subtract([token])
                self._of += Counter()  # without those that have none left
            writer.close()

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: it was the connection's last."""
        token = self._token(request)
        tree = self._trees.get(token)
        if tree is None or self._of[token] > EACH:
            unknown = tree is None and time.monotonic() > self._all_known_at
            status = "401 Unauthorized" if unknown else "503 Service Unavailable"
            fields = {"WWW-Authenticate": "Bearer"} if unknown else {}
            writer.write(head(status, fields | {"Connection": "close"}, 0))
            await writer.drain()
            return False
        if request.method == "PROPFIND":
            listing = tree.listing(request.path, deep=request.headers.get("depth") != "0")
            if listing is None:
                writer.write(head("404 Not Found", {}, 0))
            else:
                writer.write(head("207 Multi-Status", XML, len(listing)) + listing)
        elif request.method in {"GET", "HEAD"}:
            await self._file(request, tree.files.get(request.path), writer)
        else:
            writer.write(head("405 Method Not Allowed", {"Allow": "GET, HEAD, PROPFIND"}, 0))
        await writer.drain()
        return True

    def _token(self, request: Request) -> str:
        """The known token that a request shows, or ''."""
        given = request.headers.get("authorization", "").removeprefix("Bearer ").encode()
        return next((each for each in self._trees if hmac.compare_digest(each.encode(), given)), "")

    async def _file(
        self, request: Request, entry: ManifestEntry | None, writer: asyncio.StreamWriter
    ) -> None:
        if entry is None:
            writer.write(head("404 Not Found", {}, 0))
            return
        wanted = request.range_of(entry.size)
        if wanted is None:
            writer.write(
                head("416 Range Not Satisfiable", {"Content-Range": f"bytes */{entry.size}"}, 0)
            )
            return
        start, stop = wanted
        fields = {"Accept-Ranges": "bytes", "Last-Modified": LONG_AGO}
        status = "200 OK"
        if "range" in request.headers:
            status = "206 Partial Content"
            fields["Content-Range"] = f"bytes {start}-{stop - 1}/{entry.size}"
        if request.method == "HEAD" or start == stop:
            writer.write(head(status, fields, stop - start))
            return
        await self._bytes(entry, start, stop, head(status, fields, stop - start), writer)

    async def _bytes(
        self,
        entry: ManifestEntry,
        start: int,
        stop: int,
        first: bytes,
        writer: asyncio.StreamWriter,
    ) -> None:
        """Send the head with the first bytes: until they are there another answer is possible."""
        sent = False
        while start < stop:
            try:
                path, until = await self._parts.ready(entry.sha256, entry.size, start, stop)
            except StellwerkError as error:
                if sent:
                    raise ConnectionAbortedError from error
                writer.write(head(_failure(error), {}, 0))
                return
            if not sent:
                writer.write(first)
                sent = True
            try:
                file = path.open("rb")
            except FileNotFoundError:  # complete meanwhile, and moved into the cache
                continue
            with file:
                while start < until:
                    size = min(CHUNK, until - start)
                    data = await asyncio.to_thread(os.pread, file.fileno(), size, start)
                    writer.write(data)
                    await writer.drain()
                    start += len(data)


async def _request(reader: asyncio.StreamReader) -> Request:
    """The next request, read to its end. Raises IncompleteReadError when none comes."""
    request = Request.parse(await reader.readuntil(b"\r\n\r\n"))
    await reader.readexactly(request.body_bytes)
    return request


def _failure(error: StellwerkError) -> str:
    if isinstance(error, ServiceUnavailableError):
        return "503 Service Unavailable"
    return "404 Not Found" if isinstance(error, NotFoundError) else "500 Internal Server Error"
