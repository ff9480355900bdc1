"""Each run that asks for GPUs has its own, and sees no others."""

import os
import sys
from pathlib import Path
from types import SimpleNamespace

import pynvml
import pytest
from real_attempts import launcher, log_holds, read, request

from stellwerk_gpu_executor import resources
from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.gpu_shares import GpuShares, NoGpuError, visible
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest, WallsError
from stellwerk_gpu_executor.warm import Limits, WarmPool
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner

IDS = ("GPU-aa", "GPU-ab", "GPU-b")
SEEN = "import os; print('sees', os.environ.get('CUDA_VISIBLE_DEVICES'), flush=True)"
WAITS = f"{SEEN}\nimport signal; signal.pause()"


def test_no_two_have_the_same() -> None:
    shares = GpuShares(IDS, {"before": ["GPU-aa"]})
    assert shares.take("one", 0) == ()
    assert shares.take("one", 1) == ("GPU-ab",)
    assert shares.take("one", 2) == ("GPU-ab", "GPU-b"), "once more: instead of what it had"
    with pytest.raises(NoGpuError, match="1 wanted, and of this node's 3 GPUs 3 are in use"):
        shares.take("two", 1)
    shares.give_back("before")
    shares.give_back("nobody")
    assert shares.take("two", 1) == ("GPU-aa",)
    shares.hold("two", ())
    with pytest.raises(NoGpuError):
        shares.take("three", 1)


@pytest.mark.parametrize(
    ("named", "indexes"),
    [
        (None, [0, 1, 2]),
        ("", []),
        ("2,0", [2, 0]),
        (" 1 , GPU-b", [1, 2]),
        ("GPU-ab", [1]),
        ("GPU-a", []),  # of two
        ("0,-1,2", [0]),
        ("1,7,0", [1]),
        ("2,GPU-b,0", [2]),
        ("NoDevFiles", []),
        ("GPU-aa,,GPU-b", [0]),
    ],
)
def test_what_an_operator_leaves(named: str | None, indexes: list[int]) -> None:
    assert visible(IDS, named) == indexes


@pytest.mark.parametrize("text", [str, str.encode])
def test_gpus_of_this_service(monkeypatch: pytest.MonkeyPatch, text: type) -> None:
    answers = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: len(IDS),
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda index: text(f"Model {index}"),
        "nvmlDeviceGetUUID": lambda index: text(IDS[index]),
        "nvmlDeviceGetMemoryInfo": lambda index: SimpleNamespace(total=(index + 1) << 30),
    }
    for name, answer in answers.items():
        monkeypatch.setattr(pynvml, name, answer)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert resources.gpu_ids() == IDS
    assert len(resources.machine().gpus) == len(IDS)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-aa")
    assert resources.gpu_ids() == ("GPU-b", "GPU-aa")
    found = [(gpu.index, gpu.name, gpu.memory_mb) for gpu in resources.machine().gpus]
    assert found == [(2, "Model 2", 3072), (0, "Model 0", 1024)]


async def begun(
    service: ProcessLauncher, folder: Path, gpus: int, **options: object
) -> ProcessHandle:
    number = int(folder.name.removeprefix("a"))
    return await service.start(request(folder, WAITS, number, gpus=gpus, **options))


async def ended(handle: ProcessHandle) -> None:
    handle.stop("canceled", 1.0)
    await handle.wait()


async def test_each_run_sees_its_own(tmp_path: Path) -> None:
    own = {"CUDA_VISIBLE_DEVICES": "0,1,2"}
    async with launcher(tmp_path, IDS) as service:
        one = await begun(service, tmp_path / "a1", 1, env=own)
        two = await begun(service, tmp_path / "a2", 2)
        none = await begun(service, tmp_path / "a3", 0, env=own)
        await log_holds(one, b"sees GPU-aa\n")
        await log_holds(two, b"sees GPU-ab,GPU-b\n")
        await log_holds(none, b"sees 0,1,2\n")
        refused = await begun(service, tmp_path / "a4", 1)
        record = await refused.wait()
        assert (record.reason, record.exit_code) == ("launch-failed", None)
        assert "resources.gpus: 1 wanted" in str(record.message)
        await ended(one)
        next_one = await begun(service, tmp_path / "a5", 1)
        await log_holds(next_one, b"sees GPU-aa\n")
        for handle in (two, none, next_one):
            await ended(handle)


class NoWalls:
    """Walls that cannot be made."""

    async def around(self, _: LaunchRequest) -> LaunchRequest:
        raise WallsError("no room")

    def clear(self, _: object) -> None: ...


async def test_a_run_that_could_not_be_started_has_none(tmp_path: Path) -> None:
    async with launcher(tmp_path, IDS[:1]) as service:
        service._walls = NoWalls()
        with pytest.raises(WallsError):
            await begun(service, tmp_path / "a1", 1)
        service._walls = None
        handle = await begun(service, tmp_path / "a2", 1)
        await log_holds(handle, b"sees GPU-aa\n")
        await ended(handle)


async def test_a_run_that_is_taken_over_keeps_its_own(tmp_path: Path) -> None:
    async with launcher(tmp_path, IDS[:2]) as service:
        await log_holds(await begun(service, tmp_path / "a1", 1), b"sees GPU-aa\n")
    async with launcher(tmp_path, IDS[:2]) as service:
        handle = await service.adopt(AttemptDir(tmp_path / "a1"))
        assert handle is not None
        other = await begun(service, tmp_path / "a2", 1)
        await log_holds(other, b"sees GPU-ab\n")
        await ended(handle)
        third = await begun(service, tmp_path / "a3", 1)
        await log_holds(third, b"sees GPU-aa\n")
        await ended(other)
        await ended(third)


async def test_a_warm_run_sees_its_own(tmp_path: Path) -> None:
    tasks = TaskOwner()
    pool = WarmPool(tmp_path / "warm", ("json",), Limits(), SystemClock(), tasks)
    try:
        asked = request(tmp_path / "a1", SEEN, gpus=1)
        recipe = recipe_of(sys.executable, asked.env)
        await pool.ready(recipe)
        async with launcher(tmp_path, IDS) as service:
            warm = request(tmp_path / "a1", SEEN, gpus=1, warm=pool.take(recipe))
            handle = await service.start(warm)
            assert (await handle.wait()).exit_code == 0
            assert read(handle.attempt.log) == b"sees GPU-aa\n"
            assert (handle.attempt.read_launch() or {})["warm"]
    finally:
        pool.close()
        await tasks.close()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
