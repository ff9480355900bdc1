"""Leases with the scheduler, over the bus and, when that is away, straight over HTTP."""

import asyncio
from collections.abc import Iterable
from typing import Any, Protocol, TypeVar

import httpx2
import structlog
from pydantic import BaseModel, ConfigDict, ValidationError

from stellwerk.errors import StellwerkError
from stellwerk.events import RunAssigned
from stellwerk_gpu_executor.domain import lease_margin
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import Clock

CALL_TIMEOUT_S = 3.0
FRESH_S = 0.5
LOOPBACK = ("127.0.0.1", "::1", "localhost")
R = TypeVar("R", bound=BaseModel)

log = structlog.get_logger()


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class LeaseState(_Model):
    """The scheduler's answer for one attempt; ``lease_s`` counts from when we asked."""

    run_id: str
    attempt: int
    valid: bool
    lease_s: float = 0.0


class RenewReply(_Model):
    """Answers for all attempts asked for."""

    leases: tuple[LeaseState, ...]


class ConfirmReply(_Model):
    """Whether the attempt is still the run's current one."""

    valid: bool


class Leased(Protocol):
    """An attempt as the renewal sees it."""

    lease_deadline: float
    stop_reason: str | None

    @property
    def key(self) -> tuple[str, int]:
        """Run and attempt number."""
        ...

    def renew(self, deadline: float) -> None:
        """Let it live until that monotonic time."""
        ...

    def stop(self, reason: str, grace_s: float | None = None) -> None:
        """End it."""
        ...


class LeaseClient:
    """Renews and confirms for one executor."""

    def __init__(
        self,
        bus: Bus,
        clock: Clock,
        executor_id: str,
        boot_id: str,
        url: str | None,
        token: str | None = None,
    ) -> None:
        self._bus, self._clock = bus, clock
        self._executor, self._boot = executor_id, boot_id
        self._one_clock = url is not None and httpx2.URL(url).host in LOOPBACK
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._http = (
            None
            if url is None
            else httpx2.AsyncClient(base_url=url, headers=headers, trust_env=False)
        )

    async def close(self) -> None:
        """Close the direct connection."""
        if self._http is not None:
            await self._http.aclose()

    async def renew(self, attempts: Iterable[Leased]) -> None:
        """Renew all; a renewal counts from when it was asked for, and only when answered."""
        by_key = {attempt.key: attempt for attempt in attempts}
        if not by_key:
            return
        asked_at = self._clock.monotonic()
        request: dict[str, Any] = {
            "executor_id": self._executor,
            "boot_id": self._boot,
            "leases": [{"run_id": run, "attempt": number} for run, number in by_key],
        }
        reply = await self._ask("lease-renew", "/leases/renew", request, RenewReply)
        for lease in reply.leases if reply is not None else ():
            attempt = by_key.get((lease.run_id, lease.attempt))
            if attempt is None:
                continue
            if lease.valid:
                attempt.renew(asked_at + lease.lease_s - lease_margin(lease.lease_s))
            else:
                log.warning(
                    "lease refused",
                    action="lease_refused",
                    run_id=lease.run_id,
                    attempt=lease.attempt,
                )
                attempt.stop("superseded", 5.0)

    async def confirm(self, assigned: RunAssigned, attempt: Leased, given_at: float | None) -> bool:
        """Ask the scheduler whether this attempt shall still be started.

        Asked again while the scheduler is away; False once the lease is over or a stop came. Not
        asked where the assignment, made at ``given_at`` (epoch seconds), is a moment old by the
        clock of this very machine: its lease holds, and a stop follows it on the same stream.
        """
        if given_at is not None and self._one_clock:
            limit = min(FRESH_S, lease_margin(assigned.lease_s) / 2)
            if 0 <= self._clock.now().timestamp() - given_at < limit:
                return attempt.stop_reason is None
        request = {
            "run_id": assigned.run_id,
            "attempt": assigned.attempt,
            "executor_id": self._executor,
        }
        while attempt.stop_reason is None and self._clock.monotonic() < attempt.lease_deadline:
            reply = await self._ask("attempt-confirm", "/attempts/confirm", request, ConfirmReply)
            if reply is not None:
                return reply.valid
            await asyncio.sleep(0.2)
        return False

    async def _ask(self, verb: str, path: str, request: dict[str, Any], model: type[R]) -> R | None:
        try:
            return await self._bus.call("scheduler", verb, request, model, CALL_TIMEOUT_S)
        except StellwerkError as error:
            log.info(
                "asking the scheduler directly",
                action="lease_fallback",
                verb=verb,
                error=error.message,
            )
        if self._http is None:
            return None
        try:
            answer = await self._http.post(path, json=request, timeout=CALL_TIMEOUT_S)
            return model.model_validate_json(answer.content) if answer.is_success else None
        except (httpx2.HTTPError, ValidationError) as error:
            log.warning(
                "scheduler unreachable", action="lease_unreachable", verb=verb, error=str(error)
            )
            return None
