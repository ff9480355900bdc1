"""Whether a process answers: a greeting on its port, or its readiness page."""

import asyncio
import contextlib

TIMEOUT_S = 2.0


async def is_ready(probe: str) -> bool:
    """``tcp:<port>``: somebody listens; ``http:<port>``: GET /readyz is answered with 200."""
    kind, _, port = probe.partition(":")
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", int(port))
            try:
                if kind == "tcp":
                    return True
                writer.write(
                    b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
                )
                return (await reader.readline()).split()[1:2] == [b"200"]
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()
    except (OSError, TimeoutError):
        return False
