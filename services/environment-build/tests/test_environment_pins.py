"""A run that names the environment of an earlier one gets exactly that, whatever came since."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stellwerk.api import BuildView, EnvironmentView
from stellwerk.environment_spec import from_packages
from stellwerk.events import ImageReady
from stellwerk.runspec import EnvironmentPin, EnvironmentReference
from stellwerk_kit.bus import Bus
from stellwerk_kit.service import Runtime
from stellwerk_kit.testing import wait_until

NAME = "environment-build"
ANY_ALPHA = EnvironmentReference(name="e", version=1)


@pytest.fixture
async def first(
    bus: Bus, seen: Any, start: Callable[..., Awaitable[Runtime[Any]]], make_wheel: Any
) -> ImageReady:
    """The first run of an environment that wants any alpha: it got 1.0."""
    make_wheel("alpha", "1.0")
    await start()
    body = {"name": "e", "requirements": "alpha"}
    await bus.call(NAME, "environment-register", body, EnvironmentView)
    await seen.prepare("run-1", ANY_ALPHA)
    ready: ImageReady = await seen.ready("run-1")
    return ready


def pin(ready: ImageReady, **changes: Any) -> EnvironmentPin:
    return EnvironmentPin(
        env_id=ready.env_id, lock_digest=changes.get("lock", ready.image.lock_digest)
    )


async def rebuilt(bus: Bus, number: int) -> None:
    begun = await bus.call(NAME, "build-start", {"name": "e", "rebuild": True}, BuildView)

    async def there() -> bool:
        view = await bus.call(NAME, "build-get", {"env_id": begun.env_id}, BuildView)
        return (view.state, view.build) == ("ready", number)

    await wait_until(there)


def packages(tmp_path: Path, env_id: str) -> list[str]:
    found: list[str] = json.loads((tmp_path / "environments" / env_id / "ready.json").read_text())[
        "packages"
    ]
    return found


async def test_the_same_environment_is_there_at_once(seen: Any, first: ImageReady) -> None:
    await seen.prepare("run-2", ANY_ALPHA, pin(first))
    again = await seen.ready("run-2")
    assert again.cached
    assert again.image == first.image


async def test_after_a_rebuild_it_is_made_again_from_the_recorded_lock_once(
    bus: Bus, seen: Any, first: ImageReady, make_wheel: Any, tmp_path: Path
) -> None:
    make_wheel("alpha", "2.0")
    await rebuilt(bus, 2)
    assert packages(tmp_path, first.env_id) == ["alpha==2.0"]
    await seen.prepare("run-2", ANY_ALPHA, pin(first))
    await seen.prepare("run-3", ANY_ALPHA, pin(first))
    again = await seen.ready("run-2")
    assert again.image.lock_digest == first.image.lock_digest
    assert (again.image.name, again.image.version) == ("e", 1)
    assert again.env_id != first.env_id
    assert packages(tmp_path, again.env_id) == ["alpha==1.0"]
    assert (await seen.ready("run-3")).env_id == again.env_id
    await wait_until(lambda: seen.log_closed(again.env_id, 1))
    assert "[1/4] Using the recorded lock" in seen.log_text(again.env_id, 1)


async def test_what_was_never_built_or_kept_here_is_refused(seen: Any, first: ImageReady) -> None:
    other = EnvironmentPin(env_id="f" * 40, lock_digest="0" * 64)
    await seen.prepare("run-2", ANY_ALPHA, other)
    assert (await seen.failed("run-2")).code == "env.not_found"
    await seen.prepare("run-3", from_packages(["alpha"]), pin(first, lock="0" * 64))
    failed = await seen.failed("run-3")
    assert failed.code == "env.lock_unknown"
    assert "submit it anew" in failed.message
