"""A lazy mount by an executor on the host, handed into the containers of its runs."""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import images
import pytest_asyncio
from engine import client

sys.path.append(str(images.ROOT / "services/gpu-executor/tests"))

import test_mounts as mounts
from assignments import Watcher, publish, scheduler, start
from test_mounts import fuse  # noqa: F401 - a fixture

from stellwerk.events import AttemptExited, ImageInfo, RunStopRequested
from stellwerk_gpu_executor.rclone import mounted
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import wait_until

MIB = 1024 * 1024
HERE = {"image": ImageInfo(env_id="none", interpreter="/usr/bin/python3")}


@pytest_asyncio.fixture
async def executor(
    fuse: None,  # noqa: F811
    runtime_factory: Any,
    s3_settings: Any,
    tmp_path: Path,
) -> Any:
    async def begin() -> Any:
        return await start(
            runtime_factory, s3_settings, tmp_path,
            launcher="docker", run_image=images.base(), executor_id="local",
        )  # fmt: skip

    await runtime_factory("scheduler", ServiceSettings, scheduler)
    yield begin
    left = client().containers.list(
        all=True, filters={"label": "stellwerk.executor=local"}, ignore_removed=True
    )
    for container in left:
        container.remove(force=True)
    for place in mounted(tmp_path):
        mounts.rclone.unmount(place)
    assert left == []


def exits(watch: Watcher, run: str) -> Any:
    return lambda: [each for each in watch.of(AttemptExited) if each.run_id == run]


def assigned(run: str, script: str, data: Any) -> Any:
    return mounts.submitted(run, script, data).model_copy(update=HERE)


async def test_a_container_reads_what_its_executor_mounted(
    executor: Any, bus: Bus, objects: ObjectStore, tmp_path: Path
) -> None:
    files = {"big": mounts.noise(64 * MIB), "a/small": b"one"}
    data = await mounts.dataset(objects, files)
    watch = Watcher()
    await watch.start(bus)
    await executor()
    await publish(bus, assigned("run1", mounts.READS, data), 1)
    exited = (await wait_until(exits(watch, "run1"), 60))[0]
    assert exited.exit.succeeded, (exited, watch.log.decode())
    told = json.loads(watch.log.decode())
    assert told["files"] == {n: hashlib.sha256(each).hexdigest() for n, each in files.items()}
    assert told["wrote"] == "Read-only file system"
    assert set(told["kind"]) == {"fuse.rclone"}
    said = watch.logs[mounts.PREPARED].decode()
    assert "mounted lazily, as asked for" in said, said
    await wait_until(lambda: not (tmp_path / "executor/attempts/run1-1").exists(), 30)
    assert mounted(tmp_path) == []


HOLDS = """
import sys, time
while True:
    with open(f"{sys.argv[1]}/big", "rb") as big:
        big.read(100)
    print(".", end="", flush=True)
    time.sleep(0.1)
"""


async def test_it_goes_on_when_the_executor_starts_anew(
    executor: Any, bus: Bus, objects: ObjectStore, tmp_path: Path
) -> None:
    """rclone and the container outlive it; the next one serves both and undoes them at the end."""
    data = await mounts.dataset(objects, {"big": mounts.noise(40 * MIB)})
    watch = Watcher()
    await watch.start(bus)
    first = await executor()
    await publish(bus, assigned("run2", HOLDS, data), 1)
    await wait_until(lambda: len(watch.log) > 3, 60)
    await first.stop()
    assert len(mounted(tmp_path)) == 1
    before = len(watch.log)
    await executor()
    await wait_until(lambda: len(watch.log) > before + 20, 60)
    assert set(watch.log) == {ord(".")}
    stop = RunStopRequested(
        run_id="run2", attempt=1, node_id="cpu-0-local", executor_id="local", reason="canceled",
        grace_s=5.0,
    )  # fmt: skip
    await publish(bus, stop, 2)
    await wait_until(exits(watch, "run2"), 60)
    await wait_until(lambda: not (tmp_path / "executor/attempts/run2-1").exists(), 30)
    assert mounted(tmp_path) == []
