"""The log of one build on the bus, as history reads it (``docs/architecture.md``, Logs).

Lines are sent as they come, several at once when the broker is slower than they are. A broker
that is away delays the log, never the build.
"""

import asyncio
from urllib.parse import quote

from stellwerk import subjects
from stellwerk_kit.bus import Bus

STREAM = "build"
PATH = "azureml-logs/20_image_build_log.txt"
MAX_CHUNK_BYTES = 128 * 1024
MAX_LOG_BYTES = 8 * 1024 * 1024


class LogStream:
    """Collects lines with :meth:`line`; :meth:`pump` sends them until :meth:`close`."""

    def __init__(self, bus: Bus, env_id: str, build: int) -> None:
        self._bus = bus
        self._subject = subjects.log(env_id, build, STREAM)
        self._id = f"log/{env_id}/{build}/{STREAM}"
        self._pending = bytearray()
        self._sent = 0
        self._closed = False
        self._changed = asyncio.Event()

    def line(self, text: str) -> None:
        """Add one line; what is beyond 8 MiB is left out."""
        if self._sent + len(self._pending) < MAX_LOG_BYTES:
            self._pending += text.encode(errors="replace") + b"\n"
            self._changed.set()

    def close(self) -> None:
        """No more lines: ``pump`` ends when everything is sent."""
        self._closed = True
        self._changed.set()

    async def pump(self) -> None:
        """Send until closed, at last the mark that the log is complete."""
        while self._pending or not self._closed:
            await self._changed.wait()
            self._changed.clear()
            while chunk := bytes(self._pending[:MAX_CHUNK_BYTES]):
                await self._send(chunk, {})
                del self._pending[: len(chunk)]
        await self._send(b"", {"Sw-Final": "1"})

    async def _send(self, chunk: bytes, more: dict[str, str]) -> None:
        headers = {
            "Nats-Msg-Id": f"{self._id}/{self._sent}",
            "Sw-Offset": str(self._sent),
            "Sw-Path": quote(PATH),
            **more,
        }
        await self._bus.publish_until_stored(self._subject, chunk, headers)
        self._sent += len(chunk)
