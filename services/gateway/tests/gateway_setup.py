"""A running gateway, and scripted answers in place of the other services."""

import hashlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
from pydantic import BaseModel, ConfigDict

from stellwerk_gateway.settings import Settings
from stellwerk_kit.bus import Bus
from stellwerk_kit.rpc import RawReply, responder
from stellwerk_kit.service import Runtime
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.wire import Message

TOKEN, READER = "writer-token", "reader-token"


class Anything(BaseModel):
    """Any request; ``model_extra`` has its fields."""

    model_config = ConfigDict(extra="allow")


Answer = Callable[[dict[str, Any]], Awaitable[BaseModel | RawReply | dict[str, Any]]]


@dataclass
class Services:
    """Scripted verbs of other services: ``services.on("history", "run-get", answer)``."""

    bus: Bus
    tasks: TaskOwner = field(default_factory=TaskOwner)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    async def on(self, service: str, verb: str, answer: Answer) -> None:
        async def typed(request: Anything) -> BaseModel | RawReply:
            fields = dict(request.model_extra or {})
            self.asked.append((verb, fields))
            reply = await answer(fields)
            return Anything.model_validate(reply) if isinstance(reply, dict) else reply

        respond = responder(verb, Anything, typed)

        def in_background(message: Message) -> None:
            self.tasks.spawn(respond(message), verb)

        await self.bus.serve(service, verb, in_background)
        await self.bus.flush()


@dataclass
class Gateway:
    """A running gateway and clients of it."""

    runtime: Runtime[Settings]
    port: int
    client: httpx2.AsyncClient
    stranger: httpx2.AsyncClient

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


GatewayFactory = Callable[..., Awaitable[Gateway]]


def write_tokens(path: Path) -> Path:
    """A tokens file with one writer and one reader."""
    rows = [("ann", TOKEN, "write"), ("ro", READER, "read")]
    entries = [
        {"name": name, "sha256": hashlib.sha256(token.encode()).hexdigest(), "scope": scope}
        for name, token, scope in rows
    ]
    path.write_text(json.dumps(entries))
    return path
