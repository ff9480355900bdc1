"""The operations port of a service: health, readiness, metrics, and routes it adds.

A bare ASGI application under uvicorn: a web framework would cost each service memory and start
time for three pages.
"""

import asyncio
import socket
from collections.abc import Awaitable, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

MAX_BODY = 256 * 1024


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """A request with its whole body; header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: {"content-type": "application/json"})


Route = Callable[[HttpRequest], Awaitable[HttpResponse]]


class Operations:
    """Serves on ``host:port``; ``port`` is the real one after :meth:`start`."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self.port = port
        self.ready = False
        self.routes: dict[str, Route] = {}
        self._server: uvicorn.Server | None = None
        self._task: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Listen; raises OSError when the port is taken."""
        # With the protocol named, asyncio sets TCP_NODELAY; without, answers wait 40 ms for an ACK.
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # asyncio does not do it for such a socket, and each answer would come 40 ms later.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((self._host, self.port))
        self.port = listener.getsockname()[1]
        self._server = embedded_server(self, limit_concurrency=64)
        self._task = asyncio.create_task(  # noqa: TID251 - awaited in stop()
            self._server.serve(sockets=[listener]), name="operations"
        )

    async def stop(self) -> None:
        """Stop listening."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.gather(self._task, return_exceptions=True)

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """ASGI entry."""
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_BODY or not message.get("more_body"):
                break
        headers = {key.decode().lower(): text.decode() for key, text in scope["headers"]}
        response = await self._answer(HttpRequest(scope["method"], scope["path"], headers, body))
        pairs = [(key.encode(), text.encode()) for key, text in response.headers.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": pairs})
        await send({"type": "http.response.body", "body": response.body})

    async def _answer(self, request: HttpRequest) -> HttpResponse:
        if len(request.body) > MAX_BODY:
            return HttpResponse(413, b'{"code":"body.too_large"}')
        if request.path == "/healthz":
            return HttpResponse(200, b'{"status":"ok"}')
        if request.path == "/readyz":
            return HttpResponse(
                200 if self.ready else 503, b'{"ready":%s}' % (b"true" if self.ready else b"false")
            )
        if request.path == "/metrics":
            return HttpResponse(200, generate_latest(), {"content-type": CONTENT_TYPE_LATEST})
        route = self.routes.get(request.path)
        return await route(request) if route else HttpResponse(404, b'{"code":"not_found"}')


class _Server(uvicorn.Server):
    """Wakes once a second for the date header, not ten times to ask whether to stop."""

    def __init__(self, config: uvicorn.Config) -> None:
        self._stopping = asyncio.Event()
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Whether it was told to stop."""
        return self._stopping.is_set()

    @should_exit.setter
    def should_exit(self, told: bool) -> None:
        if told:
            self._stopping.set()

    async def main_loop(self) -> None:
        """Until it is told to stop."""
        while not self.should_exit:
            await self.on_tick(0)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), 1.0)


def embedded_server(app: Any, **options: Any) -> uvicorn.Server:
    """A uvicorn server that leaves signals, logging and shutdown to the service runner."""
    config = uvicorn.Config(
        app, log_config=None, access_log=False, lifespan="off", loop="asyncio", **options
    )
    server = _Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    return server
