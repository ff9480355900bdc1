"""Runs with GPUs begin warm only where loading the frameworks is seen to have left them alone."""

import mmap
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
import pytest_asyncio
from assignments import assigned

from stellwerk.events import ImageInfo, RunAssigned
from stellwerk_gpu_executor import gpu_check
from stellwerk_gpu_executor.domain import Places
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing.host import lacking
from stellwerk_shim import preload

ENV = {"PYTHONPATH": "/agent", "PATH": "/usr/bin:/bin"}
HOLDS = "file = open(device, 'r+b')"
MAPS = f"{HOLDS}; memory = mmap.mmap(file.fileno(), {mmap.PAGESIZE}); file.close()"


class Driver:
    """Stands in for NVIDIA's management library: two GPUs and who uses them."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.computing: dict[int, list[int]] = {0: [], 1: []}
        self.open = 0
        for name, answer in {
            "nvmlInit": lambda: self._opened(1),
            "nvmlShutdown": lambda: self._opened(-1),
            "nvmlDeviceGetCount": lambda: len(self.computing),
            "nvmlDeviceGetHandleByIndex": lambda index: index,
            "nvmlDeviceGetComputeRunningProcesses": self._users,
            "nvmlDeviceGetGraphicsRunningProcesses": lambda _: [],
        }.items():
            patch.setattr(pynvml, name, answer)

    def _opened(self, change: int) -> None:
        self.open += change

    def _users(self, index: int) -> list[SimpleNamespace]:
        assert self.open == 1
        return [SimpleNamespace(pid=pid) for pid in self.computing[index]]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    return Driver(monkeypatch)


@contextmanager
def process(code: str, device: Path) -> Iterator[int]:
    """One that has done ``code`` and waits."""
    script = f"import mmap, sys; device = sys.argv[1]; {code}; print(flush=True); input()"
    command = [sys.executable, "-c", script, str(device)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        child.stdout.readline()
        yield child.pid
        child.stdin.close()


@pytest.mark.parametrize("code", [HOLDS, MAPS])
def test_a_process_that_has_a_device(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, driver: Driver, code: str
) -> None:
    device = tmp_path / "nvidia0"
    device.write_bytes(bytes(mmap.PAGESIZE))
    monkeypatch.setattr(gpu_check, "DEVICES", (str(tmp_path / "nvidia"),))
    with process(code, device) as pid:
        assert gpu_check.touched(pid) == f"loading its frameworks has opened {device}"
    with process("pass", device) as pid:
        assert gpu_check.touched(pid) is None


def test_a_warm_process_refuses_what_is_looked_for() -> None:
    assert gpu_check.DEVICES is preload.DEVICES
    assert "/dev/dxg".startswith(preload.DEVICES)


def test_a_process_that_the_driver_knows(driver: Driver) -> None:
    driver.computing[1] = [1, os.getpid()]
    assert gpu_check.touched(os.getpid()) == "loading its frameworks has begun to use a GPU"
    driver.computing[1] = [1]
    assert gpu_check.touched(os.getpid()) is None
    assert driver.open == 0


def test_a_driver_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    monkeypatch.setattr(pynvml, "nvmlInit", missing)
    assert "cannot be asked who uses them" in str(gpu_check.touched(os.getpid()))


def test_a_process_that_is_gone(driver: Driver) -> None:
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert gpu_check.touched(child.pid) == "its warm process cannot be looked at"


def run(**spec: object) -> RunAssigned:
    return assigned("r" * 32, "pass", spec=spec, image=ImageInfo(env_id="e" * 40))


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[WarmPool]:
    tasks = TaskOwner()
    made = WarmPool(tmp_path / "warm", ("json",), Limits(), SystemClock(), tasks)
    yield made
    made.close()
    await tasks.close()


async def test_a_run_with_gpus_begins_warm_when_they_were_left_alone(
    pool: WarmPool, tmp_path: Path, driver: Driver
) -> None:
    places = Places(tmp_path, tmp_path, tmp_path, Path("/agent"), {}, {}, tmp_path)
    must, may = (run(warm=how, resources={"gpus": 1}) for how in ("require", "auto"))
    await pool.ready(recipe_of(sys.executable, ENV))
    (only,) = pool.servers()
    driver.computing[0] = [only.pid]
    choice = await pool.choose(may, sys.executable, ENV, places)
    assert (choice.server, choice.reason) == (None, "loading its frameworks has begun to use a GPU")
    with pytest.raises(ColdError, match="begun to use a GPU"):
        await pool.choose(must, sys.executable, ENV, places)
    without = await pool.choose(run(), sys.executable, ENV, places)
    assert without.server is only
    driver.computing[0] = []
    assert (await pool.choose(may, sys.executable, ENV, places)).server is only
    assert (await pool.choose(must, sys.executable, ENV, places)).server is only


@pytest.mark.parametrize(("code", "opened"), [(HOLDS, True), (MAPS, True), ("pass", False)])
def test_with_a_device_node_of_that_name(tmp_path: Path, code: str, opened: bool) -> None:
    """A device of the kernel's under a GPU's name, in a view of /dev that only this process has."""
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--map-root-user"])]
    if subprocess.run([*unshare, "true"], check=False, stderr=subprocess.DEVNULL).returncode:
        lacking("a mount namespace that a test may make")
    devices = " ".join(f"/dev/{name}" for name in ("null", "zero", "urandom"))
    python = tmp_path / "python"
    python.write_text(
        f"#!/bin/sh\nexec {' '.join(unshare)} sh -c '"
        f"mkdir {tmp_path}/dev; for n in {devices}; do touch {tmp_path}$n; mount --bind $n {tmp_path}$n; done\n"
        f"touch {tmp_path}/dev/nvidia0; mount --bind /dev/zero {tmp_path}/dev/nvidia0\n"
        f'mount --rbind {tmp_path}/dev /dev; exec {sys.executable} "$@"\' python "$@"\n'
    )
    python.chmod(0o755)
    (tmp_path / "loads.py").write_text(f"import mmap\ndevice = '/dev/nvidia0'\n{code}")
    done = subprocess.run(
        [sys.executable, "-m", "stellwerk_gpu_executor.gpu_check", str(python), "loads"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, "nobody can ask this machine's driver"
    found = "the preloaded modules have opened /dev/nvidia0" in done.stdout
    assert found is opened, done.stdout + done.stderr
    assert shutil.which("nvidia-smi") or opened or "cannot be asked" in done.stdout
