"""What the routes work with: the bus, the object store, and the other services behind them.

One :class:`Platform` per process, injected as ``Here``. Answers of services are the models of
``stellwerk.api`` plus the few wrappers of ``replies.py``.
"""

import asyncio
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, TypeVar

from fastapi import Depends, Request
from pydantic import BaseModel

from stellwerk_gateway.problems import HttpError
from stellwerk_gateway.settings import Settings
from stellwerk_gateway.snapshots import SnapshotPaths
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import Clock
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.rpc import RawReply

ANSWER_S = 5.0
BEST_EFFORT_S = 1.0
WAIT_S = 15.0

T = TypeVar("T", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Platform:
    """The connections of the gateway. ``stopping`` is set when it ends: open streams end too.

    ``inside``: asked under a name that only the platform's own network knows, so addresses of files
    must lead there. ``targets``: when a compute target was last seen. The scheduler decides; a
    sweep's thousand submissions need not ask it a thousand times before.
    """

    settings: Settings
    bus: Bus
    objects: ObjectStore
    clock: Clock
    snapshots: SnapshotPaths
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    targets: dict[str, float] = field(default_factory=dict)
    inside: bool = False

    async def ask(
        self,
        service: str,
        verb: str,
        reply: type[T],
        /,
        *,
        timeout_s: float = ANSWER_S,
        **request: Any,
    ) -> T:
        """Ask a service with the fields that are not None; raises what it raised."""
        fields = {name: value for name, value in request.items() if value is not None}
        return await self.bus.call(service, verb, fields, reply, timeout_s)

    async def send(
        self,
        service: str,
        verb: str,
        request: BaseModel,
        reply: type[T],
        /,
        *,
        wait_s: float = 0.0,
    ) -> T:
        """Pass a whole request on, allowing the answer ``wait_s`` seconds more than usual.

        Raises HttpError 413 for one the bus cannot carry.
        """
        size, limit = len(request.model_dump_json().encode()), self.bus.client.max_payload
        if size > limit:
            raise HttpError(
                413,
                "body.too_large",
                f"The request is {size} bytes; the broker here carries {limit}. Send fewer files "
                "at a time, or let its operator raise max_payload.",
            )
        return await self.bus.call(service, verb, request, reply, ANSWER_S + wait_s)

    async def read(
        self, service: str, verb: str, /, *, wait_s: float | None = None, **request: Any
    ) -> RawReply:
        """Ask for bytes, allowing the answer ``wait_s`` seconds more where the verb can wait."""
        waits = {} if wait_s is None else {"wait_s": wait_s}
        return await self.bus.call_raw(
            service, verb, {**request, **waits}, ANSWER_S + (wait_s or 0)
        )


async def _platform(request: Request) -> Platform:
    found: Platform = request.app.state.platform
    inside = request.url.hostname in found.settings.inside_hosts
    return replace(found, inside=True) if inside else found


async def _principal(request: Request) -> str:
    return str(request.state.principal)


Here = Annotated[Platform, Depends(_platform)]
Who = Annotated[str, Depends(_principal)]
"""Name of the token that was used."""
