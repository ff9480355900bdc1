"""When the scheduler is asked whether an attempt shall still be started."""

from dataclasses import dataclass
from typing import Any

import pytest
from assignments import Anything, assigned
from pydantic import BaseModel

from stellwerk_gpu_executor.leases import LeaseClient
from stellwerk_kit.bus import Bus
from stellwerk_kit.service import Runtime
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import FakeClock


@dataclass
class Waiting:
    """An attempt that waits for its start."""

    lease_deadline: float
    stop_reason: str | None = None
    key: tuple[str, int] = ("run", 1)

    def renew(self, deadline: float) -> None:
        self.lease_deadline = deadline

    def stop(self, reason: str, grace_s: float | None = None) -> None:
        self.stop_reason = reason


async def scheduler_that_refuses(runtime: Runtime[Any]) -> None:
    async def confirm(request: Any) -> BaseModel:
        return Anything.model_validate({"valid": False})

    runtime.rpc("attempt-confirm", Anything, confirm)


@pytest.mark.parametrize(
    ("url", "age_s", "lease_s", "asked"),
    [
        ("http://127.0.0.1:9", 0.0, 120.0, False),
        ("http://127.0.0.1:9", 1.0, 120.0, True),  # the scheduler may know better by now
        ("http://127.0.0.1:9", 0.4, 4.0, True),  # nearly the margin of a short lease
        ("http://127.0.0.1:9", -5.0, 120.0, True),  # the clock was set back
        ("http://127.0.0.1:9", None, 120.0, True),  # taken up again after a restart
        ("http://scheduler:9", 0.0, 120.0, True),  # another machine, another clock
        (None, 0.0, 120.0, True),
    ],
)
async def test_only_a_fresh_assignment_of_this_machine_is_not_asked_about(
    runtime_factory: Any,
    bus: Bus,
    url: str | None,
    age_s: float | None,
    lease_s: float,
    asked: bool,
) -> None:
    await runtime_factory("scheduler", ServiceSettings, scheduler_that_refuses)
    clock = FakeClock()
    client = LeaseClient(bus, clock, "local", "boot", url)
    given_at = None if age_s is None else clock.now().timestamp() - age_s
    waiting = Waiting(clock.monotonic() + 60)
    run = assigned("run", "pass", lease_s=lease_s)
    assert await client.confirm(run, waiting, given_at) is not asked
    waiting.stop("canceled")
    assert not await client.confirm(run, waiting, given_at), "a stop is never overlooked"
    await client.close()
