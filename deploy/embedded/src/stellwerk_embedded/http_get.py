"""One small HTTP request to a loopback port, and its signature for the S3 server.

The supervisor lives as long as the platform: it carries no HTTP library and no S3 client.
"""

import asyncio
import contextlib
import hashlib
import hmac
from collections.abc import Mapping
from datetime import datetime

LIMIT = 1024 * 1024
EMPTY = hashlib.sha256(b"").hexdigest()
REGION = "us-east-1"


async def request(
    port: int, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body (at most 1 MiB) of a request without a body. Raises OSError."""
    lines = [f"{method} {path} HTTP/1.0", *(f"{k}: {v}" for k, v in (headers or {}).items())]
    if headers is None or "Host" not in headers:
        lines.append(f"Host: 127.0.0.1:{port}")
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(("\r\n".join(lines) + "\r\nContent-Length: 0\r\n\r\n").encode())
        answer = b""
        while len(answer) < LIMIT and (chunk := await reader.read(65_536)):
            answer += chunk
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    head, _, body = answer.partition(b"\r\n\r\n")
    words = head.split(b" ", 2)
    if len(words) < 2 or not words[1].isdigit():
        raise ConnectionError(f"port {port} answers, but not in HTTP")
    return int(words[1]), body


def s3_headers(
    method: str, host: str, path: str, keys: Mapping[str, str], now: datetime
) -> dict[str, str]:
    """Headers of a signed S3 request without query and body (AWS signature, version 4)."""
    moment, day = now.strftime("%Y%m%dT%H%M%SZ"), now.strftime("%Y%m%d")
    signed = {"host": host, "x-amz-content-sha256": EMPTY, "x-amz-date": moment}
    names = ";".join(signed)
    fields = "".join(f"{name}:{text}\n" for name, text in signed.items())
    request_text = f"{method}\n{path}\n\n{fields}\n{names}\n{EMPTY}"
    scope = f"{day}/{REGION}/s3/aws4_request"
    digest = hashlib.sha256(request_text.encode()).hexdigest()
    to_sign = f"AWS4-HMAC-SHA256\n{moment}\n{scope}\n{digest}"
    key = f"AWS4{keys['secret_key']}".encode()
    for part in (day, REGION, "s3", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    return {
        "Host": host,
        "X-Amz-Date": moment,
        "X-Amz-Content-Sha256": EMPTY,
        "Authorization": f"AWS4-HMAC-SHA256 Credential={keys['access_key']}/{scope}, "
        f"SignedHeaders={names}, Signature={signature}",
    }
