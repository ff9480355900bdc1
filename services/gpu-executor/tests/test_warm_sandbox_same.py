"""Warm runs in a sandbox, which is what most runs are: the suite of sameness with walls around."""

import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import real_attempts
import test_latent as latent
import test_sandbox_same as walled
import test_warm_sameness as same
from test_latent import env
from test_warm_sameness import CASES, FRAMEWORKS, PRELOAD, PYTHON, fork_server
from walled_attempts import lay_out, walls

from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["env"]
PEEKS = """
import os
print(os.path.exists(HIDDEN), os.path.exists('/home'), sorted(os.listdir('/')))
print([name for name in os.listdir('/proc') if name.isdigit() and int(name) not in (1, os.getpid())], os.getppid())
print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))])
try: open('/etc/written', 'w')
except OSError as error: print(error.errno)
"""


@asynccontextmanager
async def walled_pool(
    folder: Path, preload: tuple[str, ...], *readable: str
) -> AsyncIterator[WarmPool]:
    """One whose runs are those of a node that `on_its_node` makes launchers for."""
    shown = tuple(map(Path, readable))
    isolation, tasks = walls(lay_out(folder / "node"), sandbox_readable=shown), TaskOwner()
    made = WarmPool(folder / "warm", preload, Limits(), SystemClock(), tasks, isolation)
    NODES.append(isolation)
    yield made
    NODES.remove(isolation)
    made.close()
    await tasks.close()
    isolation.groups.sweep(())
    await isolation.close()


NODES: list[Isolation] = []


def on_its_node(folder: Path) -> AbstractAsyncContextManager[ProcessLauncher]:
    return walled.launcher(folder, NODES[-1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WarmPool]:
    async with walled_pool(tmp_path_factory.mktemp("warm"), PRELOAD + FRAMEWORKS) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def server(tmp_path: Path, env: dict[str, str]) -> AsyncIterator[WarmServer]:
    async with walled_pool(tmp_path, ("tensorflow", "keras"), env["PYTHONPATH"]) as made:
        recipe = recipe_of(sys.executable, env)
        await made.ready(recipe)
        yield made.take(recipe)


def request(folder: Path, script: str, attempt: int = 1, **options: Any) -> LaunchRequest:
    made = real_attempts.request(folder, script, attempt, **options)
    (folder / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
    site = Path(made.env.get("PYTHONPATH", "/none"))
    seen = (Path(real_attempts.AGENT), folder.parent / "site", site)
    python = Path(made.argv[0])
    return replace(made, python=python, readable=seen, writable=(made.cwd,))


@pytest.fixture(autouse=True)
def in_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for module in (same, latent):
        monkeypatch.setattr(module, "launcher", on_its_node)
        monkeypatch.setattr(module, "request", request)
    return


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
async def test_warm_in_a_sandbox_is_as_bare(case: str, tmp_path: Path, pool: WarmPool) -> None:
    await same.test_warm_is_as_bare(case, tmp_path, pool)


@pytest.mark.parametrize("case", latent.AGAIN)
async def test_a_script_begins_again_in_a_sandbox(
    case: str, tmp_path: Path, env: dict[str, str], server: WarmServer
) -> None:
    await latent.test_a_variable_that_was_read_already_begins_the_script_again(
        case, tmp_path, env, server
    )


async def test_a_warm_run_is_behind_the_walls_of_a_cold_one(tmp_path: Path, pool: WarmPool) -> None:
    secret = tmp_path / "secret"
    secret.write_text("not for runs")
    server, _ = await fork_server(pool)
    script = PEEKS.replace("HIDDEN", repr(str(secret)))
    said = []
    async with on_its_node(tmp_path) as service:
        for name, warm in (("a", server), ("b", None)):
            asked = request(tmp_path / name, script, argv=[PYTHON, "main.py"], warm=warm)
            handle = await service.start(asked)
            assert (await handle.wait()).exit_code == 0, real_attempts.read(handle.attempt.log)
            assert bool((handle.attempt.read_launch() or {})["warm"]) == (warm is not None)
            said.append(real_attempts.read(handle.attempt.log))
    assert said[0] == said[1]
    assert said[0].startswith(b"False False ")
    assert said[0].endswith(b"['0000000000000000', '1']\n30\n"), "and the system is read-only"
