"""Bare, cold and warm do the same: exit code or signal, output bytes, files written.

`STELLWERK_SAMENESS_PYTHON=/path/to/bin/python` runs the suite in another environment, with the
cases of the frameworks it has: TensorFlow 2.21 and 2.15, Keras 3 on JAX and on torch.
"""

import ast
import asyncio
import hashlib
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
from real_attempts import attempt_of, launcher, read, request
from same_scripts import JAX, KERAS, PLAIN, TENSORFLOW, TORCH, UNSEEDED, seeded

from stellwerk_gpu_executor.early_settings import applied, settings_of
from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import READ_EARLY, Recipe, recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_shim import marks

PYTHON = os.environ.get("STELLWERK_SAMENESS_PYTHON", sys.executable)
PRELOAD = ("multiprocessing.pool", "concurrent.futures.process", "asyncio", "decimal", "unittest")
FRAMEWORKS = ("numpy", "tensorflow", "torch", "jax", "keras", "matplotlib.pyplot")
LOOK = "import importlib.util as u; print([n for n in {} if u.find_spec(n)])"
HAS = ast.literal_eval(
    subprocess.run(
        [PYTHON, "-c", LOOK.format(("tensorflow", "jax", "torch", "keras"))],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
)
CASES = (
    PLAIN
    | (KERAS if "keras" in HAS else {})
    | (TENSORFLOW if "tensorflow" in HAS else {})
    | (JAX if "jax" in HAS else {})
    | (TORCH if "torch" in HAS else {})
)
ENV = {
    "PATH": os.environ["PATH"],
    "PYTHONUNBUFFERED": "1",
    "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg",
    **({"KERAS_BACKEND": HAS[0]} if "keras" in HAS else {}),
}
pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[WarmPool]:
    tasks = TaskOwner()
    folder = tmp_path_factory.mktemp("warm")
    made = WarmPool(folder, PRELOAD + FRAMEWORKS, Limits(), SystemClock(), tasks)
    yield made
    made.close()
    await tasks.close()


async def fork_server(
    pool: WarmPool, script: str = "", *, plain: bool = False
) -> tuple[WarmServer, Recipe]:
    env = applied(ENV, settings_of(script, {}, READ_EARLY))
    recipe = replace(recipe_of(PYTHON, env), plain=plain)
    await pool.ready(recipe)
    return pool.take(recipe), recipe


def facts(folder: Path, output: bytes) -> tuple[bytes, dict[str, str]]:
    """Output with the folder's name taken out, and the files that were written."""
    files = {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {"__pycache__", ".keras", ".matplotlib"} & {*path.parts}
    }
    output = re.sub(rb"0x[0-9a-f]+", b"ADDRESS", output)
    output = re.sub(rb"(?m)^([IWE]0000) [0-9:.]+ +\d+ ", rb"\1 TIME ", output)  # absl's logger
    output = re.sub(rb"(?m)^\d{4}-\d\d-\d\d [0-9:.]+: ", b"TIME ", output)  # TensorFlow's before it
    return output.replace(str(folder).encode(), b"FOLDER"), files


def lay_out(folder: Path, case: str) -> Path:
    folder.mkdir()
    for name, text in CASES[case].items():
        (folder / name).write_text(text)
    return folder


def bare(folder: Path) -> tuple[int, tuple[bytes, dict[str, str]]]:
    done = subprocess.run(
        [PYTHON, "main.py", "one", "--two"],
        cwd=folder,
        env=ENV | {"HOME": str(folder), "MPLCONFIGDIR": f"{folder}/.matplotlib"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        restore_signals=True,
        umask=0o022,
        preexec_fn=_no_core,
        check=False,
    )
    return done.returncode, facts(folder, done.stdout)


def _no_core() -> None:
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGHUP, signal.SIGINT):  # ignored in what a shell starts behind itself
        signal.signal(number, signal.SIG_DFL)


async def through(
    tmp_path: Path, work: Path, server: WarmServer | None
) -> tuple[int, tuple[bytes, dict[str, str]]]:
    async with launcher(tmp_path) as service:
        asked = request(
            tmp_path / "attempt",
            (work / "main.py").read_text(),
            argv=[PYTHON, "main.py", "one", "--two"],
            cwd=work,
            warm=server,
        )
        environment = ENV | {
            "HOME": str(work),
            "MPLCONFIGDIR": f"{work}/.matplotlib",
            marks.WANTED: "1",
            "PYTHONPATH": str(_site(tmp_path)),
        }
        asked.env.clear()
        asked.env.update(environment)
        handle = await service.start(asked)
        record = await handle.wait()
        assert bool((handle.attempt.read_launch() or {})["warm"]) == (server is not None)
        code = record.exit_code if record.signal is None else -record.signal
        assert code is not None, record
        assert not read(tmp_path / "attempt" / "shim.log")
        return code, facts(work, read(handle.attempt.log))


def _site(folder: Path) -> Path:
    """What a run has on its path: the library's folder with our sitecustomize."""
    site = folder / "site"
    site.mkdir(exist_ok=True)
    shutil.copy(str(marks.__file__), site / "sitecustomize.py")
    return site


@pytest.mark.parametrize("case", CASES)
async def test_warm_is_as_bare(case: str, tmp_path: Path, pool: WarmPool) -> None:
    expected = await asyncio.to_thread(bare, lay_out(tmp_path / "work", case))
    (tmp_path / "work").rename(tmp_path / "was-bare")
    for plain in (True, False) if case in PLAIN else (False,):
        server, _ = await fork_server(pool, CASES[case]["main.py"], plain=plain)
        found = await through(tmp_path, lay_out(tmp_path / "work", case), server)
        assert _without(found) == _without(expected), f"plain: {plain}"
        (tmp_path / "work").rename(tmp_path / f"was-plain-{plain}")
        shutil.rmtree(tmp_path / "attempt")


@pytest.mark.parametrize("case", ["process", "exception", "finalizers", "signal-handlers"])
async def test_cold_is_as_bare(case: str, tmp_path: Path) -> None:
    expected = await asyncio.to_thread(bare, lay_out(tmp_path / "work", case))
    (tmp_path / "work").rename(tmp_path / "was-bare")
    found = await through(tmp_path, lay_out(tmp_path / "work", case), None)
    assert _without(found) == _without(expected)


def _without(result: tuple[int, tuple[bytes, dict[str, str]]]) -> tuple[int, bytes, dict[str, str]]:
    """The result without variables that only a run of the platform has."""
    code, (output, files) = result
    lines = [_without_pairs(line) for line in output.split(b"\n")]
    return code, b"\n".join(lines), files


def _without_pairs(line: bytes) -> bytes:
    if not line.startswith(b"[('"):
        return line
    pairs = ast.literal_eval(line.decode())
    return repr(
        [pair for pair in pairs if not pair[0].startswith(("STELLWERK_", "PYTHONPATH"))]
    ).encode()


async def test_four_at_once_come_to_what_each_does_alone(tmp_path: Path, pool: WarmPool) -> None:
    def folder(name: str, seed: int) -> Path:
        made = tmp_path / name / "work"
        made.mkdir(parents=True)
        (made / "main.py").write_text(seeded(seed, HAS)["main.py"])
        return made

    alone = {}
    for seed in (1, 2, 3):
        alone[seed] = await asyncio.to_thread(bare, folder(f"bare-{seed}", seed))
    assert len({output for _, (output, _) in alone.values()}) == 3
    asked = [(seed, folder(f"warm-{place}", seed)) for place, seed in enumerate((1, 2, 3, 1))]
    server, _ = await fork_server(pool, seeded(1, HAS)["main.py"])
    found = await asyncio.gather(*(through(work.parent, work, server) for _, work in asked))
    for (seed, _), result in zip(asked, found, strict=True):
        assert _without(result) == _without(alone[seed])


async def test_runs_without_a_seed_differ(tmp_path: Path, pool: WarmPool) -> None:
    server, _ = await fork_server(pool, UNSEEDED)
    lines = []
    for name in "abc":
        work = tmp_path / name / "work"
        work.mkdir(parents=True)
        (work / "main.py").write_text(UNSEEDED)
        status, (output, _) = await through(work.parent, work, server)
        assert status == 0, output
        lines += output.splitlines()
    assert len(set(lines)) == len(lines) >= 3


async def test_runs_outlive_their_fork_server(tmp_path: Path, pool: WarmPool) -> None:
    server, recipe = await fork_server(pool)
    script = "import time; print('on', flush=True); time.sleep(0.5); print('done')"
    async with launcher(tmp_path) as service:
        asked = request(tmp_path / "a", script, argv=[PYTHON, "main.py"], warm=server)
        handle = await service.start(asked)
        os.kill(server.pid, signal.SIGKILL)
        record = await handle.wait()
        assert record.exit_code == 0
        assert handle.attempt.log.read_bytes() == b"on\ndone\n"
        # The next run finds it gone and begins cold, with the reason.
        asked = request(tmp_path / "b", "print(2)", argv=[PYTHON, "main.py"], warm=server)
        handle = await service.start(asked)
        assert (await handle.wait()).exit_code == 0
        launch = attempt_of(tmp_path / "b").read_launch() or {}
        assert (launch["warm"], launch["cold_reason"]) == (
            False,
            "its warm process did not start it",
        )
    pool.broken(recipe)


async def test_a_fork_that_hangs_is_killed_and_started_cold(
    tmp_path: Path, pool: WarmPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server, recipe = await fork_server(pool)
    monkeypatch.setattr("stellwerk_gpu_executor.launcher.WARM_TIMEOUT_S", 0.5)
    server.link.settimeout(0.5)
    os.kill(server.pid, signal.SIGSTOP)
    async with launcher(tmp_path) as service:
        asked = request(tmp_path / "a", "print('ran')", argv=[PYTHON, "main.py"], warm=server)
        handle = await service.start(asked)
        record = await handle.wait()
        assert record.exit_code == 0
        assert handle.attempt.log.read_bytes() == b"ran\n"
        os.kill(server.pid, signal.SIGCONT)  # what it does now finds the attempt taken
        pool.broken(recipe)
    assert handle.attempt.log.read_bytes() == b"ran\n"


async def test_cancel_ends_one_run_and_no_neighbour(tmp_path: Path, pool: WarmPool) -> None:
    server, _ = await fork_server(pool)
    script = "import time; print('on', flush=True); time.sleep(SECONDS); print('done')"
    async with launcher(tmp_path) as service:
        handles = []
        for name, seconds in (("a", "60"), ("b", "0.5")):
            text = script.replace("SECONDS", seconds)
            asked = request(tmp_path / name, text, argv=[PYTHON, "main.py"], warm=server)
            handles.append(await service.start(asked))
        handles[0].stop("canceled", grace_s=5)
        records = [await handle.wait() for handle in handles]
        assert (records[0].reason, records[0].signal) == ("canceled", signal.SIGTERM)
        assert (records[1].reason, records[1].exit_code) == ("exited", 0)
    assert pool.take(recipe_of(PYTHON, ENV)) is server
