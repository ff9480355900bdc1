"""What the engine is told about a run's container: the walls are the same whatever a run asks for."""

from pathlib import Path
from typing import Any

import pytest

from stellwerk_gpu_executor.container import Profile, config, name_of, on_host
from stellwerk_gpu_executor.launching import LaunchRequest

HOST = {Path("/data"): Path("/volumes/x/_data"), Path("/data/deep"): Path("/elsewhere")}
PROFILE = Profile(
    executor_id="executor-1",
    image="local/run:1",
    network="none",
    shm_bytes=1 << 30,
    user=10_031,
    shim=Path("/data/shim"),
    notify=Path("/data/notify"),
    host=HOST,
)


def told(gpus: tuple[str, ...] = (), **options: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "folder": Path("/data/attempts/r-1"),
        "run_id": "r",
        "attempt": 1,
        "argv": ["python", "main.py"],
        "cwd": Path("/data/attempts/r-1/work"),
        "env": {"LD_PRELOAD": "/evil.so", "PATH": "/bin"},
    }
    return config(LaunchRequest(**values | options), PROFILE, gpus)


@pytest.mark.parametrize(
    "options",
    [{}, {"gpus": ("GPU-2",)}, {"cpus": 0.5, "memory_limit_bytes": 1 << 20}, {"readable": (Path("/data/i"),)}],
    ids=str,
)  # fmt: skip
def test_walls_stand(options: dict[str, Any]) -> None:
    made = told(**options)
    host = made["HostConfig"]
    assert made["User"] == "10031:10031"
    assert host["CapDrop"] == ["ALL"]
    assert host["SecurityOpt"] == ["no-new-privileges=true"]
    assert host["ReadonlyRootfs"] is True
    assert host["NetworkMode"] == "none"
    assert host["Init"] is True
    assert host["PidsLimit"] == 4096
    assert host["IpcMode"] == "private"
    assert host["LogConfig"]["Config"]["mode"] == "blocking"
    assert not {"Privileged", "CapAdd", "Devices", "PidMode", "UsernsMode", "Binds"} & set(host)


def test_the_runs_environment_is_not_the_containers() -> None:
    assert told()["Env"] == ["LC_CTYPE=C.UTF-8", "LD_PRELOAD=", "LD_LIBRARY_PATH="]


def test_limits_are_the_runs_own() -> None:
    host = told(cpus=1.5, memory_limit_bytes=64 << 20, gpus=("GPU-1", "GPU-3"))["HostConfig"]
    assert (host["NanoCpus"], host["Memory"], host["MemorySwap"]) == (
        1_500_000_000,
        64 << 20,
        64 << 20,
    )
    wanted = {"Driver": "nvidia", "DeviceIDs": ["GPU-1", "GPU-3"], "Capabilities": [["gpu"]]}
    assert host["DeviceRequests"] == [wanted]
    assert not {"NanoCpus", "Memory", "DeviceRequests"} & set(told()["HostConfig"])


def test_only_what_a_run_may_write_is_writable() -> None:
    data = Path("/data/attempts/r-1/inputs/mnist")
    mounts = told(readable=(Path("/data/agent"), data), writable=(Path("/data/m"),))["HostConfig"][
        "Mounts"
    ]
    assert {mount["Target"]: mount["ReadOnly"] for mount in mounts} == {
        "/data/agent": True,
        "/data/attempts/r-1": False,
        "/data/attempts/r-1/inputs/mnist": True,
        "/data/m": False,
        "/data/notify": True,
        "/data/shim": True,
    }
    targets = [mount["Target"] for mount in mounts]
    assert targets.index("/data/attempts/r-1") < targets.index(str(data))
    assert mounts[0]["Source"] == "/volumes/x/_data/agent"


def test_labels_name_run_attempt_and_lease() -> None:
    assert told(lease=12.5, gpus=("GPU-0", "GPU-2"))["Labels"] == {
        "stellwerk.executor": "executor-1",
        "stellwerk.run": "r",
        "stellwerk.attempt": "1",
        "stellwerk.lease": "12.500",
        "stellwerk.gpus": "GPU-0,GPU-2",
    }
    assert name_of("r", 2) == "stellwerk-r-2"


def test_paths_on_the_host() -> None:
    assert on_host(Path("/data/a/b"), HOST) == Path("/volumes/x/_data/a/b")
    assert on_host(Path("/data/deep/b"), HOST) == Path("/elsewhere/b")
    assert on_host(Path("/database"), HOST) == Path("/database")
    assert on_host(Path("/x"), {}) == Path("/x")
