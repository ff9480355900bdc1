"""What leaves the cache by age and size, and what never does."""

import os
import re
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest

from stellwerk.api import PruneView
from stellwerk.environment_spec import from_packages
from stellwerk.runspec import EnvironmentPin
from stellwerk_environment_build.cache import READY, EnvironmentCache, Ready, Usage
from stellwerk_environment_build.handlers import Handlers
from stellwerk_environment_build.pruning import SPARED_S, Wanted, doomed
from stellwerk_environment_build.store import BuildStore
from stellwerk_kit.bus import Bus
from stellwerk_kit.service import Runtime

NAME = "environment-build"
DAY = 86_400.0
NOW = 100 * DAY
FOUND = [Usage(name, NOW - days * DAY, 10) for name, days in (("a", 40), ("b", 20), ("c", 1))]
JUST_NOW = Usage("d", NOW - SPARED_S / 2, 10)


@pytest.mark.parametrize(
    ("wanted", "going"),
    [
        (Wanted(older_than_s=30 * DAY), ["a"]),
        (Wanted(older_than_s=0), ["a", "b", "c"]),
        (Wanted(max_bytes=40), []),
        (Wanted(max_bytes=25), ["a", "b"]),
        (Wanted(max_bytes=0), ["a", "b", "c"]),
        (Wanted(max_bytes=25, in_use={"a"}), ["b", "c"]),
        (Wanted(older_than_s=30 * DAY, max_bytes=20), ["a", "b"]),
        (Wanted(older_than_s=10 * DAY, max_bytes=1000), ["a", "b"]),
    ],
)
def test_age_then_size_longest_unused_first(wanted: Wanted, going: list[str]) -> None:
    assert [each.env_id for each in doomed([*FOUND, JUST_NOW], wanted, NOW)] == going


@pytest.fixture
async def aged(
    seen: Any, start: Callable[..., Awaitable[Runtime[Any]]], make_wheel: Any, tmp_path: Path
) -> dict[str, str]:
    """Environments of alpha and beta, last used 40 and 20 days ago: id by package."""
    await start()
    found = {}
    for name, days in (("alpha", 40), ("beta", 20)):
        make_wheel(name)
        await seen.prepare(f"run-{name}", from_packages([name]))
        found[name] = (await seen.ready(f"run-{name}")).env_id
        then = time.time() - days * DAY
        os.utime(tmp_path / "environments" / found[name] / READY, (then, then))
    return found


async def prune(bus: Bus, **request: Any) -> PruneView:
    return await bus.call(NAME, "environment-prune", request, PruneView)


async def test_what_is_asked_for_again_is_built_again(
    bus: Bus, seen: Any, aged: dict[str, str], tmp_path: Path
) -> None:
    said = await prune(bus, older_than_s=30 * DAY, dry_run=True)
    assert [each.env_id for each in said.removed] == [aged["alpha"]]
    assert (tmp_path / "environments" / aged["alpha"]).exists(), "only said"
    done = await prune(bus, older_than_s=30 * DAY)
    assert [each.env_id for each in done.removed] == [aged["alpha"]]
    assert (done.kept, done.freed_bytes > 0, done.removed[0].idle_s > 39 * DAY) == (1, True, True)
    assert not (tmp_path / "environments" / aged["alpha"]).exists()
    assert not list((tmp_path / "environments/.building").iterdir())
    assert (await prune(bus, older_than_s=30 * DAY)).removed == ()
    await seen.prepare("run-again", from_packages(["alpha"]))
    again = await seen.ready("run-again")
    assert (again.env_id, again.cached, again.build) == (aged["alpha"], False, 2)


async def test_what_is_in_use_stays(
    bus: Bus, seen: Any, aged: dict[str, str], tmp_path: Path
) -> None:
    assert (await prune(bus, max_bytes=0, in_use=list(aged.values()))).kept == 2
    await seen.prepare("run-more", from_packages(["alpha"]))
    assert (await seen.ready("run-more")).cached
    done = await prune(bus, max_bytes=0)
    assert [each.env_id for each in done.removed] == [aged["beta"]], "alpha was just asked for"


async def test_a_pinned_image_counts_as_used(tmp_path: Path) -> None:
    """It is not looked for among the packages here, but its record is what pruning goes by."""
    cache = EnvironmentCache(tmp_path)
    ready = Ready(
        env_id="a" * 40, python="3.11.2", image="a@sha256:1", image_python="/usr/bin/python3",
        built_at=datetime.now(UTC), builder_version="1",
    )  # fmt: skip
    cache.path(ready.env_id).mkdir()
    path = cache.path(ready.env_id) / READY
    path.write_text(ready.model_dump_json())
    os.utime(path, (1.0, 1.0))
    builds = Mock(spec=BuildStore)
    builds.known.return_value = ready
    handlers = Handlers(Mock(cache=cache), builds, *[Mock() for _ in range(4)])
    pin = EnvironmentPin(env_id=ready.env_id, lock_digest=None, image="b@sha256:2")
    meant = await handlers._meant(from_packages([]), pin)
    found = meant.lookup()
    assert found is not None
    assert found.image == "b@sha256:2"
    assert time.time() - (cache.last_used(ready.env_id) or 0) < DAY


def test_an_engine_knows_a_builder_as_long_as_its_cache_lasts(tmp_path: Path) -> None:
    one, other = EnvironmentCache(tmp_path / "one"), EnvironmentCache(tmp_path / "other")
    known = one.builder()
    assert re.fullmatch("[0-9a-f]{12}", known)
    assert EnvironmentCache(tmp_path / "one").builder() == known
    assert other.builder() != known
    assert list(one.usage()) == []
    assert [path.name for path in one.root.glob(".builder*")] == [".builder"]
