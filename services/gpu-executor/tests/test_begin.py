"""A run that must begin warm does so or fails; one that is stopped while it waits is let go."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio
from assignments import assigned
from real_attempts import launcher, read, request

from stellwerk.events import ImageInfo
from stellwerk_gpu_executor.begin import Begin
from stellwerk_gpu_executor.domain import Places
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.prepare import PrepareError
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until

IMAGE = ImageInfo(env_id="e" * 40)


@dataclass
class Killer:
    """A launcher that ends so many warm processes before it asks them."""

    launcher: ProcessLauncher
    victims: int

    async def start(self, asked: LaunchRequest) -> ProcessHandle:
        if asked.warm is not None and self.victims:
            self.victims -= 1
            os.kill(asked.warm.pid, signal.SIGKILL)
        return await self.launcher.start(asked)


@dataclass
class Node:
    folder: Path
    pool: WarmPool
    tasks: TaskOwner
    launcher: ProcessLauncher

    async def begin(
        self, name: str, warm: str, victims: int = 0, stopped: asyncio.Event | None = None
    ) -> ProcessHandle | None:
        asked = request(self.folder / name, f"print({name!r})")
        agent = Path(asked.env["PYTHONPATH"])
        work = asked.cwd
        places = Places(work, work, work, agent, {}, {}, work)
        begin = Begin(self.pool, Killer(self.launcher, victims), self.tasks)  # type: ignore[arg-type]
        run = assigned("r" * 32, "pass", spec={"warm": warm}, image=IMAGE)
        handle, _ = await begin(run, asked, places, stopped or asyncio.Event())
        assert handle is None or isinstance(handle, ProcessHandle)
        return handle


@pytest_asyncio.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    tasks = TaskOwner()
    pool = WarmPool(tmp_path / "warm", ("json",), Limits(count=1), SystemClock(), tasks)
    async with launcher(tmp_path) as service:
        yield Node(tmp_path, pool, tasks, service)
    pool.close()
    await tasks.close()


async def how(handle: ProcessHandle | None) -> tuple[bytes, bool]:
    assert handle is not None
    record = await handle.wait()
    assert (record.reason, record.exit_code) == ("exited", 0), record
    return read(handle.attempt.log), bool((handle.attempt.read_launch() or {})["warm"])


async def test_one_that_must_be_warm_begins_in_another_when_the_first_is_gone(node: Node) -> None:
    assert await how(await node.begin("a", "require")) == (b"a\n", True)
    assert await how(await node.begin("b", "require", victims=1)) == (b"b\n", True)


async def test_one_that_must_be_warm_never_begins_cold(node: Node) -> None:
    with pytest.raises(PrepareError, match="2 warm processes did not start it") as error:
        await node.begin("a", "require", victims=2)
    assert error.value.reason == "launch-failed"
    assert not read(node.folder / "a" / "std.log")
    assert await how(await node.begin("b", "require")) == (b"b\n", True)
    assert await how(await node.begin("c", "auto", victims=1)) == (b"c\n", False)


async def test_one_that_is_stopped_while_it_waits_for_its_turn(node: Node, tmp_path: Path) -> None:
    node.pool.preload = ("slow",)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)")
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(tmp_path)}
    other = node.tasks.spawn_quiet(node.pool.ready(recipe_of(sys.executable, env)), "other")
    await wait_until(node.pool.servers)
    stopped = asyncio.Event()
    begins = node.tasks.spawn_quiet(node.begin("a", "require", stopped=stopped), "begins")
    await asyncio.wait({begins}, timeout=0.1)
    assert not begins.done(), "it waits"
    stopped.set()
    assert await begins is None
    assert len(node.pool.servers()) == 1
    node.pool.close()
    other.cancel()
