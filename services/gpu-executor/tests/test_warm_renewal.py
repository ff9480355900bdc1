"""A warm process that has forked enough serves until its successor does; none is left over."""

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import pytest_asyncio
from real_attempts import is_gone, launcher, read, request
from structlog.testing import capture_logs
from walled_warm import a_node, inside, warm

from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Choice, Limits
from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import Recipe, recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until

GATED = """
import os, time
gate = os.path.join(os.path.dirname(__file__), os.environ["KERAS_BACKEND"])
while os.path.exists(gate): time.sleep(0.02)
if os.path.exists(gate + "-fails"): raise OSError("no such library")
"""


@dataclass
class Gated:
    """A pool whose processes load as long as their gate, a file, is there."""

    folder: Path
    pool: WarmPool

    def recipe(self, name: str) -> Recipe:
        env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(self.folder), "KERAS_BACKEND": name}
        return recipe_of(sys.executable, env)

    async def worn(self, name: str, gate: str = "") -> Recipe:
        """One that has forked enough, and whose successor meets the ``gate``."""
        recipe = self.recipe(name)
        await self.pool.ready(recipe)
        if gate:
            (self.folder / gate).touch()
        self.pool.take(recipe)
        self.pool.used(recipe)
        return recipe

    async def both(self) -> list[int]:
        """The old one and its successor, which is loading."""
        await wait_until(lambda: len(self.pids()) == 2, 20)
        return self.pids()

    def pids(self) -> list[int]:
        return [server.pid for server in self.pool.servers()]

    def open(self, gate: str) -> None:
        (self.folder / gate).unlink()


@pytest_asyncio.fixture
async def gated(tmp_path: Path) -> AsyncIterator[Gated]:
    async with gates(tmp_path) as made:
        yield made


@asynccontextmanager
async def gates(folder: Path, **limits: int) -> AsyncIterator[Gated]:
    (folder / "gated.py").write_text(GATED)
    tasks = TaskOwner()
    wanted = Limits(**{"forks": 1, "count": 2, **limits})
    pool = WarmPool(folder / "warm", ("gated",), wanted, SystemClock(), tasks)
    pids = list[int]()
    try:
        yield Gated(folder, pool)
    finally:
        pids += [server.pid for server in pool.servers()]
        pool.close()
        assert not pool.servers()
        await tasks.close()
    assert not tasks.failed.is_set(), tasks.failure
    await wait_until(lambda: all(map(is_gone, pids)), 10)


async def test_the_old_one_serves_until_its_successor_is_ready(gated: Gated) -> None:
    mine = await gated.worn("a", gate="a")
    old, successor = await gated.both()
    assert old != successor
    for _ in range(3):
        assert gated.pool.take(mine).pid == old
        gated.pool.used(mine)
    assert gated.pids() == [old, successor], "one is enough"
    gated.open("a")
    await wait_until(lambda: gated.pids() == [successor], 20)
    assert gated.pool.take(mine).pid == successor
    await wait_until(lambda: is_gone(old), 10)


async def test_they_live_in_folders_of_their_own(gated: Gated) -> None:
    for _ in range(3):
        mine = await gated.worn("a")
        (_, successor) = await gated.both()
        await wait_until(lambda pid=successor: gated.pids() == [pid], 20)  # type: ignore[misc]
        assert gated.pool.take(mine).pid == successor
    homes = [path for path in (gated.folder / "warm").iterdir() if path.is_dir()]
    assert len(homes) == 2, "the third has the home that the first has left"


async def test_one_that_a_run_is_about_to_begin_in_is_not_taken_away(
    gated: Gated, tmp_path: Path
) -> None:
    mine = await gated.worn("a", gate="a")
    server = held(gated.pool, mine)
    old, successor = await gated.both()
    gated.open("a")
    await wait_until(gated.pool._next[mine].ready.done, 20)
    assert gated.pool.take(mine).pid == old
    gated.pool.release(Choice(server, recipe=mine))
    assert gated.pids() == [successor]


@pytest.mark.parametrize("lacks", ["count", "memory"])
async def test_where_both_are_too_much_it_is_begun_anew_in_its_place(
    tmp_path: Path, lacks: str
) -> None:
    async with gates(tmp_path, count=1 if lacks == "count" else 2) as gated:
        await gated.pool.ready(gated.recipe("a"))
        if lacks == "memory":
            alone = gated.pool._warm[gated.recipe("a")].memory()
            gated.pool.limits = replace(gated.pool.limits, memory_bytes=int(alone * 1.5))
        (old,) = gated.pids()
        mine = await gated.worn("a", gate="a")
        assert not gated.pool._next
        with pytest.raises(ColdError, match="still loading"):
            gated.pool.take(mine)
        gated.open("a")
        await gated.pool.ready(mine)
        assert gated.pool.take(mine).pid != old


@pytest.mark.parametrize("how", ["fails", "dies"])
async def test_a_successor_that_does_not_load_changes_nothing(gated: Gated, how: str) -> None:
    with capture_logs() as logs:
        mine = await gated.worn("a", gate="a")
        old, successor = await gated.both()
        if how == "fails":
            (gated.folder / "a-fails").touch()
        else:
            os.kill(successor, signal.SIGKILL)
        gated.open("a")
        await wait_until(lambda: gated.pids() == [old], 20)
        assert is_gone(successor)
        (told,) = [each for each in logs if each.get("action") == "warm_not_renewed"]
    assert ("no such library" if how == "fails" else "ended while") in told["reason"]
    assert (told["forks"], told["again_after"]) == (1, 2)
    gated.pool.used(mine)
    assert gated.pids() == [old], "it has forked nothing since"
    (gated.folder / "a-fails").unlink(missing_ok=True)
    assert gated.pool.take(mine).pid == old
    gated.pool.used(mine)
    await gated.both()
    await wait_until(lambda: len(gated.pids()) == 1, 20)
    assert gated.pool.take(mine).pid not in {old, successor}


async def test_a_successor_leaves_first_where_another_needs_the_room(gated: Gated) -> None:
    mine = await gated.worn("a", gate="a")
    old, successor = await gated.both()
    other = gated.recipe("b")
    await gated.pool.ready(other)
    assert gated.pool.take(mine).pid == old
    assert gated.pool.take(other).pid not in {old, successor}
    await wait_until(lambda: is_gone(successor), 10)


async def test_both_end_where_forks_fail_or_the_environment_changes(
    gated: Gated, tmp_path: Path
) -> None:
    interpreter = tmp_path / "env/bin/python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    mine = replace(gated.recipe("a"), python=str(interpreter))
    for change in ("broken", "environment"):
        await gated.pool.ready(mine)
        (tmp_path / "a").touch()
        server = gated.pool.take(mine)
        gated.pool.used(mine)
        both = await gated.both()
        if change == "broken":
            gated.pool.broken(mine, server)
        else:
            (tmp_path / "env/changed").touch()
        with pytest.raises(ColdError, match="no warm process yet"):
            gated.pool.take(mine)
        await wait_until(lambda both=both: all(map(is_gone, both)), 10)  # type: ignore[misc]
        (tmp_path / "a").unlink()


async def test_a_fork_that_failed_in_the_old_one_does_not_end_its_successor(gated: Gated) -> None:
    mine = gated.recipe("a")
    await gated.pool.ready(mine)
    server = gated.pool.take(mine)
    gated.pool.used(mine)
    await gated.both()
    await wait_until(lambda: server not in gated.pool.servers(), 20)
    gated.pool.broken(mine, server)
    assert gated.pool.take(mine) in gated.pool.servers()


def held(pool: WarmPool, recipe: Recipe) -> WarmServer:
    """One for a run that is about to begin, until it is released; see `WarmPool.choose`."""
    pool._held[recipe] += 1
    return pool.take(recipe)


async def test_no_run_begins_cold_because_of_it(tmp_path: Path) -> None:
    """Plain: runs one after the other through many renewals."""
    (tmp_path / "gated.py").write_text("")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    async with launcher(tmp_path) as service, gates(tmp_path, forks=2) as gated:
        mine, seen = gated.recipe("a"), set[int]()
        await gated.pool.ready(mine)
        for number in range(60):
            server = held(gated.pool, mine)
            asked = request(tmp_path / f"a{number}", "print('ran')", warm=server, env=env)
            handle = await service.start(asked)
            gated.pool.release(Choice(server, recipe=mine))
            record = await handle.wait()
            assert (record.exit_code, read(handle.attempt.log)) == (0, b"ran\n")
            assert warm(handle), number
            gated.pool.used(mine)
            seen.add(server.pid)
            if len(seen) > 3:
                break
        assert len(seen) > 3


async def test_no_run_begins_cold_because_of_it_behind_walls(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        node.pool.limits = replace(node.pool.limits, forks=2)
        recipe, seen = recipe_of(sys.executable, node.env), set[int]()
        await node.pool.ready(recipe)
        for number in range(60):
            server = held(node.pool, recipe)
            handle = await node.start("pass", f"run-{number}-1", warm=server)
            node.pool.release(Choice(server, recipe=recipe))
            assert (await handle.wait()).exit_code == 0
            assert warm(handle), number
            node.pool.used(recipe)
            seen.add(server.pid)
            if len(seen) > 3:
                break
        assert len(seen) > 3
        node.pool.close()
        await wait_until(lambda: inside(tmp_path) == 0, 10)
