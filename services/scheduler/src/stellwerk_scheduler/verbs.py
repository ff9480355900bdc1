"""Request/reply about runs: why one waits, and whether attempts may go on.

The two about attempts are also pages of the operations port, for executors that cannot reach the
broker: ``POST /leases/renew`` and ``POST /attempts/confirm`` with the same bodies.
"""

import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy import Connection

from stellwerk.api import QueueView, View
from stellwerk.runspec import Spec
from stellwerk_kit.db import Database
from stellwerk_kit.operations import HttpRequest, HttpResponse
from stellwerk_scheduler import run_rows, waiting
from stellwerk_scheduler.leases import Leases
from stellwerk_scheduler.model import WAITING

Id = Annotated[str, Field(max_length=64)]


class QueueGet(Spec):
    """Request of ``queue-get``."""

    run_id: Id


class QueueReply(View):
    """``queue`` is None for a run that does not wait for a slot."""

    queue: QueueView | None = None


class LeaseKey(Spec):
    """One attempt."""

    run_id: Id
    attempt: int


class LeaseRenew(Spec):
    """Request of ``lease-renew``."""

    executor_id: Id
    boot_id: Id
    leases: Annotated[tuple[LeaseKey, ...], Field(max_length=2000)]


class LeaseState(View):
    """``lease_s`` counts from when the executor asked; 0 where the attempt is over."""

    run_id: str
    attempt: int
    valid: bool
    lease_s: float


class LeaseReply(View):
    """One answer per attempt asked for."""

    leases: tuple[LeaseState, ...]


class AttemptConfirm(Spec):
    """Request of ``attempt-confirm``."""

    run_id: Id
    attempt: int
    executor_id: Id


class ConfirmReply(View):
    """Whether the attempt is the run's present one and may be started."""

    valid: bool


@dataclass(frozen=True, slots=True)
class RunVerbs:
    """``now`` gives service seconds; ``tokens`` maps executors to tokens where they need one."""

    db: Database
    leases: Leases
    now: Callable[[], float]
    tokens: dict[str, str] | None = None

    async def queue(self, request: QueueGet) -> QueueReply:
        """Why a run waits."""
        now = self.now()

        def look(conn: Connection) -> QueueView | None:
            run = run_rows.load(conn, request.run_id)
            if run is None or run.state not in WAITING:
                return None
            return waiting.view(conn, run, now)

        return QueueReply(queue=await self.db.read(look))

    async def renew(self, request: LeaseRenew) -> LeaseReply:
        """Renew what is live and belongs to this executor."""
        keys = [(lease.run_id, lease.attempt) for lease in request.leases]
        valid = await self._renew(request.executor_id, keys)
        term = self.leases.term_s
        return LeaseReply(
            leases=tuple(
                LeaseState(
                    run_id=key[0],
                    attempt=key[1],
                    valid=key in valid,
                    lease_s=term if key in valid else 0.0,
                )
                for key in keys
            )
        )

    async def confirm(self, request: AttemptConfirm) -> ConfirmReply:
        """Confirm one attempt before it is started; its lease begins anew."""
        key = (request.run_id, request.attempt)
        return ConfirmReply(valid=key in await self._renew(request.executor_id, [key]))

    async def renew_page(self, request: HttpRequest) -> HttpResponse:
        """``POST /leases/renew``."""
        return await self._page(request, LeaseRenew, self.renew)

    async def confirm_page(self, request: HttpRequest) -> HttpResponse:
        """``POST /attempts/confirm``."""
        return await self._page(request, AttemptConfirm, self.confirm)

    async def _renew(self, executor_id: str, keys: list[tuple[str, int]]) -> set[tuple[str, int]]:
        run_ids = sorted({run_id for run_id, _ in keys})
        rows = await self.db.look(lambda conn: run_rows.of_runs(conn, run_ids))
        live = {row.key for row in rows if row.executor_id == executor_id}
        now = self.now()
        return {key for key in keys if key in live and self.leases.renew(key, now)}

    async def _page(
        self,
        request: HttpRequest,
        model: type[Any],
        answer: Callable[[Any], Awaitable[BaseModel]],
    ) -> HttpResponse:
        if request.method != "POST":
            return _problem(405, "method", "use POST")
        try:
            body = model.model_validate_json(request.body)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            return _problem(422, "invalid", f"{where}: {first['msg']}")
        if not self._allowed(request, body.executor_id):
            return _problem(401, "auth.required", "the executor's token is missing or wrong")
        return HttpResponse(200, (await answer(body)).model_dump_json().encode())

    def _allowed(self, request: HttpRequest, executor_id: str) -> bool:
        if self.tokens is None:
            return True
        token = self.tokens.get(executor_id)
        given = request.headers.get("authorization", "")
        return token is not None and hmac.compare_digest(given.encode(), f"Bearer {token}".encode())


def _problem(status: int, code: str, detail: str) -> HttpResponse:
    body = {"title": code, "status": status, "code": code, "detail": detail}
    return HttpResponse(
        status, json.dumps(body).encode(), {"content-type": "application/problem+json"}
    )
