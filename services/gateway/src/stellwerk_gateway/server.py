"""The REST port: uvicorn without signals and logs of its own, and with a limit on slow heads."""

import asyncio
import logging
import socket
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from stellwerk_gateway.settings import Settings
from stellwerk_kit.operations import embedded_server

KEEP_ALIVE_S = 30
STOP_S = 5
MAX_HEAD_BYTES = 32 * 1024
SLOW_HEAD = b"HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"


class ApiServer:
    """Listens from construction on, so that a taken port is an error at the start."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        family = socket.AF_INET6 if ":" in settings.api_host else socket.AF_INET
        self._listener = socket.create_server(
            (settings.api_host, settings.api_port), family=family, backlog=512
        )
        # asyncio does not do it for such a socket, and each answer would come 40 ms later.
        self._listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port: int = self._listener.getsockname()[1]
        # Its lines are about clients that speak no HTTP; the guard logs everything else.
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        self._server: uvicorn.Server = embedded_server(
            app,
            http=_protocol(settings.header_s),
            ws="none",
            server_header=False,
            proxy_headers=False,
            limit_concurrency=settings.max_connections,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=STOP_S,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        )

    async def serve(self) -> None:
        """Answer requests until :meth:`stop`."""
        try:
            await self._server.serve(sockets=[self._listener])
        finally:
            self._listener.close()

    def stop(self) -> None:
        """Accept nothing more; requests under way get ``STOP_S`` seconds."""
        self._server.should_exit = True


def _protocol(header_s: float) -> type[H11Protocol]:
    """Uvicorn's protocol, closing connections whose request head takes longer."""

    class TimedProtocol(H11Protocol):
        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            # asyncio does this only for sockets made with IPPROTO_TCP, which accepted ones are not
            # here; without it head and body of an answer wait 40 ms for each other.
            transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._arm()

        def data_received(self, data: bytes) -> None:
            if self._head_timer is None and not self._in_request():
                self._arm()
            super().data_received(data)
            if self._in_request():
                self._disarm()

        def connection_lost(self, exc: Exception | None) -> None:
            self._disarm()
            super().connection_lost(exc)

        def _in_request(self) -> bool:
            cycle: Any = self.cycle
            return cycle is not None and not cycle.response_complete

        def _arm(self) -> None:
            self._head_timer = self.loop.call_later(header_s, self._too_slow)

        def _disarm(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

        def _too_slow(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(SLOW_HEAD)
                self.transport.close()

    return TimedProtocol
