"""Warm runs in a sandbox, which is what most runs are: the suite of sameness with walls around."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_attempts
import test_latent as latent
import test_sandbox_same as walled
import test_warm_sameness as same
from test_latent import env, server
from test_warm_sameness import CASES, PYTHON, fork_server, pool

from stellwerk_gpu_executor.forkserver import ForkServer
from stellwerk_gpu_executor.launcher import LaunchRequest
from stellwerk_gpu_executor.warm import WarmPool

pytestmark = pytest.mark.asyncio(loop_scope="module")
__all__ = ["env", "pool", "server"]
PEEKS = """
import os
print(os.path.exists(HIDDEN), os.path.exists('/home'), sorted(os.listdir('/')))
print(sorted(name for name in os.listdir('/proc') if name.isdigit()) , os.getppid())
print([line.split()[1] for line in open('/proc/self/status') if line.startswith(('CapEff', 'NoNewPrivs'))])
try: open('/etc/written', 'w')
except OSError as error: print(error.errno)
"""


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
        monkeypatch.setattr(module, "launcher", walled.launcher)
        monkeypatch.setattr(module, "request", request)
    return


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
async def test_warm_in_a_sandbox_is_as_bare(case: str, tmp_path: Path, pool: WarmPool) -> None:
    await same.test_warm_is_as_bare(case, tmp_path, pool)


@pytest.mark.parametrize("case", latent.AGAIN)
async def test_a_script_begins_again_in_a_sandbox(
    case: str, tmp_path: Path, env: dict[str, str], server: ForkServer
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
    async with walled.launcher(tmp_path) as service:
        for name, warm in (("a", server), ("b", None)):
            asked = request(tmp_path / name, script, argv=[PYTHON, "main.py"], warm=warm)
            handle = await service.start(asked)
            assert (await handle.wait()).exit_code == 0, real_attempts.read(handle.attempt.log)
            assert bool((handle.attempt.read_launch() or {})["warm"]) == (warm is not None)
            said.append(real_attempts.read(handle.attempt.log))
    assert said[0] == said[1]
    assert said[0].startswith(b"False False ")
    assert said[0].endswith(b"['0000000000000000', '1']\n30\n"), "and the system is read-only"
