"""Reads request bodies before anybody else does: bounded in size, time and form. Pure ASGI.

A body is at most ``max_body_bytes`` (``max_manifest_bytes`` where lists of files are sent), no
pause in it longer than ``body_idle_s``, and it must be JSON (``strict_json``). The application
behind gets it whole.
"""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stellwerk_gateway.problems import HttpError, problem_of
from stellwerk_gateway.settings import Settings
from stellwerk_gateway.strict_json import JsonError, check_json

MANIFEST_ROUTES = (
    "/api/v1/snapshots",
    "/api/v1/datasets",
    "/api/v1/datastores",
    "/api/v1/models",
)
SLOWEST_BYTES_PER_S = 128 * 1024
LARGE_BODIES_AT_ONCE = 8
CHECK_HERE_BYTES = 256 * 1024
DRAIN_S = 2.0
DRAIN_BYTES = 64 * 1024 * 1024
CLOSE = {"Connection": "close"}
"""For refusals of bodies not read to their end: the connection cannot be used again."""


class ClientGoneError(Exception):
    """The client hung up before its body was complete."""


class BodyTooLargeError(HttpError):
    """The body has more than ``limit`` bytes."""

    def __init__(self, limit: int) -> None:
        super().__init__(
            413,
            "body.too_large",
            f"The body is larger than {limit} bytes. Upload files as blobs (POST /api/v1/blobs) "
            "and send their names and digests only.",
            headers=CLOSE,
        )


class BodyLimits:
    """ASGI middleware. Raises HttpError for what it refuses."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self._app, self._settings = app, settings
        self._large = asyncio.Semaphore(LARGE_BODIES_AT_ONCE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the body, then pass it on."""
        try:
            await self._bounded(scope, receive, send)
        except BodyTooLargeError as error:
            await _refuse_and_drain(error, scope, receive, send)

    async def _bounded(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = scope["headers"]
        length = _content_length(headers)
        if length == 0 or (length is None and not _has(headers, b"transfer-encoding")):
            await self._app(scope, receive, send)
            return
        if length is not None and _has(headers, b"transfer-encoding"):
            raise HttpError(
                400,
                "body.framing",
                "Content-Length and Transfer-Encoding together; send one.",
                headers=CLOSE,
            )
        limit = self._limit(scope["path"])
        if length is not None and length > limit:
            raise BodyTooLargeError(limit)
        if limit > self._settings.max_body_bytes and (length is None or length > CHECK_HERE_BYTES):
            async with self._large:
                await self._pass_on(scope, receive, send, limit)
        else:
            await self._pass_on(scope, receive, send, limit)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send, limit: int) -> None:
        body = await self._read(receive, limit)
        await _check(scope, body)
        replayed = False

        async def replay() -> Message:
            nonlocal replayed
            if replayed:
                return await receive()
            replayed = True
            return {"type": "http.request", "body": body, "more_body": False}

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive, limit: int) -> bytes:
        chunks: list[bytes] = []
        total, more, idle_s = 0, True, self._settings.body_idle_s
        try:
            async with asyncio.timeout(idle_s + limit / SLOWEST_BYTES_PER_S):
                while more:
                    message = await asyncio.wait_for(receive(), idle_s)
                    if message["type"] == "http.disconnect":
                        raise ClientGoneError
                    chunks.append(message.get("body", b""))
                    total += len(chunks[-1])
                    more = message.get("more_body", False)
                    if total > limit:
                        raise BodyTooLargeError(limit)
        except TimeoutError as error:
            raise HttpError(
                408,
                "body.timeout",
                f"The body came too slowly; pauses may last {idle_s:g} s.",
                headers=CLOSE,
            ) from error
        return b"".join(chunks)

    def _limit(self, path: str) -> int:
        if path.startswith(MANIFEST_ROUTES):
            return self._settings.max_manifest_bytes
        return self._settings.max_body_bytes


async def _check(scope: Scope, body: bytes) -> None:
    if not body:
        return
    media_type = _header(scope["headers"], b"content-type").split(b";")[0].strip().lower()
    if media_type != b"application/json":
        raise HttpError(
            415, "body.media_type", f"Content-Type is {media_type.decode('latin-1')[:100]!r}; "
            "send application/json."
        )  # fmt: skip
    try:
        if len(body) > CHECK_HERE_BYTES:
            await asyncio.to_thread(check_json, body)
        else:
            check_json(body)
    except JsonError as error:
        where = "" if error.offset is None else f" at offset {error.offset}"
        raise HttpError(
            400, "json.invalid", f"The body is not valid JSON{where}: {error}."
        ) from error


async def _refuse_and_drain(error: HttpError, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer, then let the rest of the body pass for a moment before the connection is closed.

    Closing with unread bytes resets the connection, and most clients would never see the answer.
    """

    async def keep_open(message: Message) -> None:
        is_body = message["type"] == "http.response.body"
        await send({**message, "more_body": True} if is_body else message)

    await problem_of(error)(scope, receive, keep_open)
    drained, more = 0, True
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            while more and drained < DRAIN_BYTES:
                message = await receive()
                drained += len(message.get("body", b""))
                more = message.get("more_body", False)
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _content_length(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    text = _header(headers, b"content-length")
    return int(text) if text.isdigit() else None


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((text for key, text in headers if key == name), b"")


def _has(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bool:
    return any(key == name for key, _ in headers)
