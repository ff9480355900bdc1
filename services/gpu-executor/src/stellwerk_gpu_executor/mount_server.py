"""Serves mounted datasets to rclone on loopback: the node cache, filled as it is read.

Each mount has a token of its own and sees one manifest. Keys of the object store stay in this
process. The port is kept over restarts, so that mounts of runs that go on find us again.
"""

import asyncio
import hmac
import os
from contextlib import suppress
from pathlib import Path

import structlog

from stellwerk.errors import NotFoundError, ServiceUnavailableError, StellwerkError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_gpu_executor.parts import Parts
from stellwerk_gpu_executor.webdav import LONG_AGO, Request, RequestError, Tree, head

HEAD_BYTES = 64 * 1024
CHUNK = 1024 * 1024
XML = {"Content-Type": "application/xml; charset=utf-8"}

log = structlog.get_logger()


class MountServer:
    """One server for all mounts of this executor."""

    def __init__(self, parts: Parts, port_file: Path) -> None:
        self._parts, self._port_file = parts, port_file
        self._trees: dict[str, Tree] = {}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.StreamWriter] = set()
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
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, RequestError):
            pass
        finally:
            self._connections.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False: none came."""
        try:
            request = Request.parse(await reader.readuntil(b"\r\n\r\n"))
        except asyncio.IncompleteReadError:
            return False
        await reader.readexactly(request.body_bytes)
        tree = self._tree(request)
        if tree is None:
            writer.write(head("401 Unauthorized", {"WWW-Authenticate": "Bearer"}, 0))
        elif request.method == "PROPFIND":
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

    def _tree(self, request: Request) -> Tree | None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        for token, tree in self._trees.items():
            if hmac.compare_digest(token.encode(), given.encode()):
                return tree
        return None

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


def _failure(error: StellwerkError) -> str:
    if isinstance(error, ServiceUnavailableError):
        return "503 Service Unavailable"
    return "404 Not Found" if isinstance(error, NotFoundError) else "500 Internal Server Error"
