"""Whether a process does its work: JetStream answers, S3 lists its bucket, /readyz is 200."""

import asyncio
import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stellwerk_embedded.http_get import request, s3_headers
from stellwerk_embedded.s3_config import BUCKET
from stellwerk_kit.clock import SystemClock

TIMEOUT_S = 2.0
INBOX = "_INBOX_probe.1"


class NotReadyError(Exception):
    """The process answers, but not as it should."""


class Probe(Protocol):
    """A question to a running process."""

    async def check(self) -> None:
        """Return when it is ready; raises NotReadyError, OSError or ValueError."""
        ...


async def problem(probe: Probe, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why the process is not ready, or None. Takes at most ``timeout_s`` seconds."""
    try:
        async with asyncio.timeout(timeout_s):
            await probe.check()
    except TimeoutError:
        return f"no answer within {timeout_s:g} s"
    except ConnectionRefusedError:
        return "nothing listens on its port yet"
    except (OSError, ValueError, EOFError, NotReadyError) as error:
        return str(error) or type(error).__name__
    return None


@dataclass(frozen=True, slots=True)
class HttpProbe:
    """A service: ``GET /readyz`` on its operations port is answered with 200."""

    port: int

    async def check(self) -> None:
        """Ask."""
        status, _ = await request(self.port, "/readyz")
        if status != 200:
            raise NotReadyError(f"/readyz answers {status}")


@dataclass(frozen=True, slots=True)
class NatsProbe:
    """The broker: its JetStream API tells about the account."""

    port: int
    credentials: Path

    async def check(self) -> None:
        """Ask, with the few words of the protocol that this needs."""
        login = json.loads(self.credentials.read_text())
        words = {"user": login["user"], "pass": login["password"], "verbose": False}
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            if not (await reader.readline()).startswith(b"INFO "):
                raise NotReadyError("it does not greet like a broker")
            writer.write(f"CONNECT {json.dumps(words)}\r\nSUB {INBOX} 1\r\n".encode())
            writer.write(f"PUB $JS.API.INFO {INBOX} 0\r\n\r\nPING\r\n".encode())
            answer = await _reply(reader)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        if "error" in answer:
            raise NotReadyError(f"JetStream: {answer['error'].get('description')}")


async def _reply(reader: asyncio.StreamReader) -> dict[str, Any]:
    while line := await reader.readline():
        if line.startswith(b"-ERR"):
            raise NotReadyError(line.decode().strip())
        if line.startswith(b"MSG "):
            found: dict[str, Any] = json.loads(await reader.readexactly(int(line.split()[-1])))
            return found
    raise NotReadyError("it closed the connection")


@dataclass(frozen=True, slots=True)
class S3Probe:
    """The object store: it lists the bucket of the platform, made here if it is not there."""

    port: int
    credentials: Path

    async def check(self) -> None:
        """Ask; the first time also make the bucket."""
        if f"<Name>{BUCKET}</Name>".encode() in await self._signed("GET", "/"):
            return
        await self._signed("PUT", f"/{BUCKET}")

    async def _signed(self, method: str, path: str) -> bytes:
        keys = json.loads(self.credentials.read_text())
        host = f"127.0.0.1:{self.port}"
        headers = s3_headers(method, host, path, keys, SystemClock().now())
        status, body = await request(self.port, path, method=method, headers=headers)
        if status != 200:
            raise NotReadyError(f"{method} {path} answers {status}")
        return body
