"""Runs on this machine's GPUs: cold and warm, as plain processes and in a sandbox. ``make test-gpu``.

``$STELLWERK_GPU_PYTHON`` is the Python of an environment with torch, jax or tensorflow for them,
without it the one that runs the tests. Not collected by ``make test``.
"""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

EXECUTOR_TESTS = Path(__file__).parents[2] / "services/gpu-executor/tests"
sys.path.append(str(EXECUTOR_TESTS))

from real_attempts import launcher, log_holds, read, request
from walled_attempts import attempt, lay_out, walled

from stellwerk_gpu_executor import gpu_check, resources
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner

PYTHON = os.environ.get("STELLWERK_GPU_PYTHON", sys.executable)
SCRIPTS = {
    "torch": """
import torch
assert torch.cuda.is_available()
there = torch.cuda.device_count()
torch.manual_seed(1)
value = torch.rand(512, 512, device='cuda').matmul(torch.rand(512, 512, device='cuda')).sum().item()
""",
    "jax": """
import jax
there = len(jax.devices('gpu'))
key = jax.random.key(1)
value = float(jax.random.uniform(key, (512, 512)).dot(jax.random.uniform(key, (512, 512))).sum())
""",
    "tensorflow": """
import tensorflow as tf
there = len(tf.config.list_physical_devices('GPU'))
tf.random.set_seed(1)
with tf.device('/GPU:0'):
    value = float(tf.reduce_sum(tf.random.uniform((512, 512)) @ tf.random.uniform((512, 512))))
""",
}
SAYS = "print(there, value, flush=True)\n"


def _has(module: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([PYTHON, "-c", code], check=False).returncode == 0


FRAMEWORKS = [name for name in SCRIPTS if _has(name)]


def test_there_is_what_these_tests_are_about() -> None:
    assert resources.gpu_ids(), "NVIDIA's management library finds no GPU"
    assert len(resources.machine().gpus) == len(resources.gpu_ids())
    assert FRAMEWORKS, f"{PYTHON} has none of {', '.join(SCRIPTS)}: set STELLWERK_GPU_PYTHON"


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_loading_a_framework_leaves_the_gpus_alone(
    framework: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert gpu_check.main(PYTHON, "numpy", framework) == 0, capsys.readouterr().out


class Node:
    """A launcher and the warm processes beside it, plain or with walls around both."""

    def __init__(
        self, folder: Path, service: ProcessLauncher, pool: WarmPool, inside: bool
    ) -> None:
        self.folder, self.service, self.pool, self.inside = folder, service, pool, inside

    async def begin(self, name: str, script: str, *, warm: bool) -> ProcessHandle:
        """A run on one GPU."""
        asked = self._request(name, script)
        if warm:
            recipe = recipe_of(PYTHON, asked.env)
            await self.pool.ready(recipe)
            server = self.pool.take(recipe)
            assert gpu_check.touched(server.pid) is None
            asked = replace(asked, warm=server)
        return await self.service.start(asked)

    async def told(self, name: str, script: str, *, warm: bool) -> str:
        """What it has printed at its end."""
        handle = await self.begin(name, script, warm=warm)
        record = await handle.wait()
        output = read(handle.attempt.log).decode()
        assert record.exit_code == 0, output
        assert bool((handle.attempt.read_launch() or {})["warm"]) is warm
        return output.splitlines()[-1]

    def _request(self, name: str, script: str) -> LaunchRequest:
        number = int(name.removeprefix("a"))
        options = {"gpus": 1, "argv": [PYTHON, "main.py"], "python": Path(PYTHON)}
        if self.inside:
            return attempt(self.folder, script, name=name, **options)
        return request(self.folder / name, script, number, **options)


@pytest_asyncio.fixture(params=["plain", "sandbox"])
async def node(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Node]:
    tasks = TaskOwner()
    async with AsyncExitStack() as stack:
        if inside := request.param == "sandbox":
            folder = lay_out(tmp_path)
            service = await stack.enter_async_context(walled(folder, gpus=resources.gpu_ids()))
            assert isinstance(service._walls, Isolation)
            isolation = service._walls
        else:
            folder, isolation = tmp_path, Isolation()
            service = await stack.enter_async_context(launcher(tmp_path, resources.gpu_ids()))
        preload = ("numpy", *FRAMEWORKS)  # first, as it is loaded by default
        pool = WarmPool(folder / "warm", preload, Limits(), SystemClock(), tasks, isolation)
        yield Node(folder, service, pool, inside)
        pool.close()
        await tasks.close()


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_cold_and_warm_come_to_the_same(node: Node, framework: str) -> None:
    script = SCRIPTS[framework] + SAYS
    cold = await node.told("a1", script, warm=False)
    assert cold.split()[0] == "1", "it sees its own GPU and no other"
    assert await node.told("a2", script, warm=True) == cold
    assert await node.told("a3", script, warm=True) == cold, "the one before has used the GPU"


async def test_a_gpu_is_one_runs_alone(node: Node) -> None:
    script = SCRIPTS[FRAMEWORKS[0]] + SAYS + "import signal; signal.pause()"
    running = []
    for number in range(len(resources.gpu_ids())):
        handle = await node.begin(f"a{number}", script, warm=True)
        await log_holds(handle, b"1 ")
        running.append(handle)
    refused = await node.begin("a99", script, warm=True)
    assert "are in use" in str((await refused.wait()).message)
    for handle in running:
        handle.stop("canceled", 1.0)
        await handle.wait()
    assert (await node.told("a100", SCRIPTS[FRAMEWORKS[0]] + SAYS, warm=True)).startswith("1 ")
