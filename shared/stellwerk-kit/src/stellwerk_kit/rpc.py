"""The form of request/reply: JSON bodies, errors that arrive as the errors they were.

A failed request is answered with header ``Sw-Error`` and a JSON body
``{"kind", "code", "message", "field", "retry_after_s"}``; anything that is not one of our errors
is answered as ``internal`` without its text.
"""

import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import structlog
from nats.errors import Error as NatsError
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import DBAPIError

from stellwerk.errors import (
    ConflictError,
    NotFoundError,
    ProtocolError,
    ServiceUnavailableError,
    StellwerkError,
    UserError,
)
from stellwerk_kit import telemetry
from stellwerk_kit.dialects import passes
from stellwerk_kit.wire import Message

log = structlog.get_logger()

_KINDS: dict[str, type[UserError]] = {
    "not_found": NotFoundError,
    "conflict": ConflictError,
    "invalid": UserError,
}


@dataclass(frozen=True, slots=True)
class RawReply:
    """Bytes with headers, for answers that are no JSON."""

    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


Answer = Callable[[Any], Awaitable[BaseModel | RawReply]]


def encode_error(error: Exception) -> RawReply:
    """The reply that carries ``error``."""
    kind = "internal"
    for name, known in _KINDS.items():
        if isinstance(error, known):
            kind = name
            break
    if isinstance(error, DBAPIError) and passes(error):
        error = ServiceUnavailableError(
            "the service's store cannot be used now; see its log", code="store.unavailable"
        )
    if isinstance(error, ServiceUnavailableError):
        kind = "unavailable"
    content: dict[str, Any] = {
        "kind": kind,
        "code": "internal",
        "message": "internal error; see the service's log",
    }
    if isinstance(error, StellwerkError) and kind != "internal":
        content.update(code=error.code, message=error.message, field=error.field)
        content["retry_after_s"] = getattr(error, "retry_after_s", None)
    elif isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        content.update(
            kind="invalid", code="invalid", message=f"{where}: {first['msg']}", field=where
        )
    return RawReply(json.dumps(content).encode(), {"Sw-Error": "1"})


def decode_reply(headers: dict[str, str] | None, body: bytes) -> RawReply:
    """The reply, or the error it carries, raised."""
    if not headers or "Sw-Error" not in headers:
        return RawReply(body, dict(headers or {}))
    content = json.loads(body)
    kind, code, message = content["kind"], content["code"], content["message"]
    if kind == "unavailable":
        raise ServiceUnavailableError(
            message, code=code, retry_after_s=content.get("retry_after_s") or 1.0
        )
    if kind in _KINDS:
        raise _KINDS[kind](message, code=code, field=content.get("field"))
    raise ProtocolError(message, code=code)


def responder(
    verb: str, request_model: type[BaseModel], answer: Answer
) -> Callable[[Message], Coroutine[Any, Any, None]]:
    """A subscription callback that decodes, answers, and turns errors into replies."""

    async def respond(message: Message) -> None:
        started = time.perf_counter()
        try:
            reply = await answer(request_model.model_validate_json(message.data or b"{}"))
        except (StellwerkError, ValidationError) as error:
            reply = encode_error(error)
        except Exception as error:
            log.exception("request failed", action="rpc_failed", verb=verb)
            reply = encode_error(error)
        telemetry.RPC_SECONDS.labels(verb).observe(time.perf_counter() - started)
        try:
            if isinstance(reply, RawReply):
                message.respond(reply.body, reply.headers)
            else:
                message.respond(reply.model_dump_json(by_alias=True).encode())
        except NatsError as error:
            log.warning("reply not sent", action="rpc_reply_lost", verb=verb, error=str(error))

    return respond
