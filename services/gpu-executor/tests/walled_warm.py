"""A node with walls and a warm process, for tests of runs that begin in it."""

import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from real_attempts import log_holds, read
from walled_attempts import attempt, lay_out, walled

from stellwerk_gpu_executor.attempt_dir import ExitRecord
from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner

WAITS = """
import os
os.mkfifo('gate')
print('ready', flush=True)
open('gate').read()
"""


@dataclass
class Node:
    """A node with walls, a warm process and a launcher for its runs."""

    folder: Path
    service: ProcessLauncher
    pool: WarmPool
    env: dict[str, str]

    async def server(self) -> WarmServer:
        """One that is ready."""
        recipe = recipe_of(sys.executable, self.env)
        await self.pool.ready(recipe)
        return self.pool.take(recipe)

    async def start(self, script: str, name: str = "run-a-1", **options: Any) -> ProcessHandle:
        """A run in it, which ends by itself where a failed test leaves it behind."""
        options.setdefault("warm", await self.server())
        options.setdefault("max_duration_s", 60.0)
        home = self.folder / "executor/attempts" / name / "home"
        env = {**self.env, "HOME": str(home)}
        asked = attempt(self.folder, script, name=name, env=env, **options)
        return await self.service.start(asked)

    async def run(self, script: str, **options: Any) -> tuple[ExitRecord, str]:
        """The same to its end: record and output."""
        handle = await self.start(script, **options)
        record = await handle.wait()
        assert not (handle.attempt.path / "shim.log").exists()
        assert warm(handle)
        return record, read(handle.attempt.log).decode()

    def drop(self) -> None:
        """Have no warm process any more."""
        self.pool.broken(recipe_of(sys.executable, self.env))


@asynccontextmanager
async def a_node(folder: Path, module: str = "", **settings: Any) -> AsyncIterator[Node]:
    """``module``: text of a package that the warm process loads, called `looks`."""
    node = lay_out(folder)
    site = node / "site"
    site.mkdir()
    (site / "looks.py").write_text(module.replace("EXECUTOR", repr(str(node / "executor"))))
    env = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(site)}
    tasks = TaskOwner()
    async with walled(node, sandbox_readable=(site,), **settings) as service:
        isolation = service._walls
        assert isinstance(isolation, Isolation)
        pool = WarmPool(node / "warm", ("looks",), Limits(), SystemClock(), tasks, isolation)
        try:
            yield Node(node, service, pool, env)
        finally:
            pool.close()
            await tasks.close()
            assert not tasks.failed.is_set(), tasks.failure


def warm(handle: ProcessHandle) -> bool:
    return bool((handle.attempt.read_launch() or {})["warm"])


def child_of(handle: ProcessHandle) -> int:
    shim = handle.attempt.read_shim()
    assert shim is not None
    return shim.child_pid


async def ready(node: Node, name: str, script: str = "", **options: Any) -> ProcessHandle:
    handle = await node.start(WAITS + script, name, **options)
    await log_holds(handle, b"ready\n")
    return handle


def inside(node: Path) -> int:
    """How many processes see the attempts of a node as runs do; a warm process is one."""
    return sum(_is_inside(path, node) for path in Path("/proc").glob("[0-9]*"))


def _is_inside(process: Path, node: Path) -> bool:
    with suppress(OSError):
        return f" {node}/executor/attempts " in (process / "mountinfo").read_text()
    return False


def go_on(handle: ProcessHandle) -> None:
    (handle.attempt.path / "work/gate").write_text("go")
