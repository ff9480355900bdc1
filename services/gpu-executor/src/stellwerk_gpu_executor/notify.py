"""Wakes whoever follows an attempt: supervisors send datagrams, followers wait on events."""

import asyncio
import os
import socket
from pathlib import Path


class NotifyServer:
    """A Unix datagram socket; each datagram is the key of an attempt whose files changed.

    A datagram says only "look again", so a lost or doubled one changes nothing that stays.
    """

    def __init__(self, path: Path, mode: int = 0o600) -> None:
        self.path, self._mode = path.absolute(), mode
        self._events: dict[str, asyncio.Event] = {}
        self._transport: asyncio.DatagramTransport | None = None

    async def start(self) -> None:
        """Bind the socket, taking the place of one a killed executor left."""
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path.unlink(missing_ok=True)
        receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        folder = os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY)
        try:
            # Through the folder's descriptor: a socket address holds only 108 bytes.
            receiver.bind(f"/proc/self/fd/{folder}/{self.path.name}")
        finally:
            os.close(folder)
        self.path.chmod(self._mode)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(
            lambda: _Receiver(self._events), sock=receiver
        )

    def event(self, key: str) -> asyncio.Event:
        """Return the event that is set whenever the attempt's files changed."""
        return self._events.setdefault(key, asyncio.Event())

    def forget(self, key: str) -> None:
        """Drop the attempt's event."""
        self._events.pop(key, None)

    async def close(self) -> None:
        """Stop receiving and remove the socket."""
        if self._transport is not None:
            self._transport.close()
        self.path.unlink(missing_ok=True)


class _Receiver(asyncio.DatagramProtocol):
    def __init__(self, events: dict[str, asyncio.Event]) -> None:
        self._events = events

    def datagram_received(self, data: bytes, addr: object) -> None:
        del addr
        event = self._events.get(data.decode(errors="replace"))
        if event is not None:
            event.set()
