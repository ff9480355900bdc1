"""Builds that are cut short: limits, cancellation, a builder killed at any moment."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from stellwerk.environment_spec import from_packages
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import EnvironmentCache
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.uv_command import IndexOptions

MakeWheel = Callable[..., Path]
MakeBuilder = Callable[..., Builder]


async def test_silent_step_is_reported_limited_and_cancelled(
    make_builder: MakeBuilder, tmp_path: Path, hanging_index: str
) -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "UV_DEFAULT_INDEX": hanging_index}
    limits = Limits(resolve_s=0.5, heartbeat_s=0.1)
    log: list[str] = []
    builder = make_builder(index=IndexOptions(), environ=environ, limits=limits)
    spec, identity = builder.identify(from_packages(["alpha"]))
    with pytest.raises(BuildFailedError) as caught:
        await builder.build(spec, identity, log.append)
    found = caught.value.failure
    assert (found.reason, found.code, found.retryable) == ("timeout", "env.build_timeout", True)
    assert sum("… resolving" in line for line in log) >= 2

    patient = make_builder(index=IndexOptions(), environ=environ, limits=Limits(heartbeat_s=0.1))
    started = asyncio.Event()

    def sink(line: str) -> None:
        if "… resolving" in line:
            started.set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(patient.build(spec, identity, sink))
        await asyncio.wait_for(started.wait(), 20)
        children = psutil.Process().children(recursive=True)
        [installer] = [child for child in children if child.name() == "uv"]  # not a test's server
        task.cancel()
    assert task.cancelled()
    assert not installer.is_running()
    assert not list((patient.cache.root / ".building").iterdir())


CHILD = """
import asyncio, sys
from pathlib import Path
from stellwerk.environment_spec import from_packages
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import EnvironmentCache
from stellwerk_environment_build.construction import Limits
from stellwerk_environment_build.interpreters import Interpreter
from stellwerk_environment_build.uv_command import IndexOptions

root, wheels, version, path = sys.argv[1:]
builder = Builder(
    EnvironmentCache(Path(root)), [Interpreter(version, Path(path))],
    index=IndexOptions(find_links=(Path(wheels),), no_index=True), limits=Limits(workers=1, heartbeat_s=0.2),
)
spec, identity = builder.identify(from_packages(["alpha"]))
asyncio.run(builder.build(spec, identity, lambda line: print(line, flush=True)))
"""


@pytest.mark.parametrize("point", ["resolved", "installed", "before_rename"])
async def test_killed_build_leaves_nothing_usable_and_the_next_one_succeeds(
    make_wheel: MakeWheel, make_builder: MakeBuilder, tmp_path: Path, point: str
) -> None:
    make_wheel("alpha")
    builder = make_builder()
    version, path = next(iter(builder._interpreters.items()))
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", CHILD, str(builder.cache.root), str(tmp_path / "wheels")),
        *(version, str(path)),
        env={**os.environ, "STELLWERK_FAILPOINTS": f"environment-build.{point}=kill"},
        stdout=asyncio.subprocess.DEVNULL,
    )
    await asyncio.wait_for(child.wait(), 60)
    assert child.returncode == -signal.SIGKILL
    _, identity = builder.identify(from_packages(["alpha"]))
    assert builder.cache.lookup(identity) is None
    assert len(list((builder.cache.root / ".building").iterdir())) == 1
    assert EnvironmentCache(builder.cache.root).sweep() == 1
    assert not list((builder.cache.root / ".building").iterdir())
    spec, _ = builder.identify(from_packages(["alpha"]))
    result = await builder.build(spec, identity, print)
    assert not result.cached
    assert result.ready.packages == ("alpha==1.0",)


async def test_sweep_ends_the_installer_of_a_killed_builder(
    make_builder: MakeBuilder, tmp_path: Path, hanging_index: str
) -> None:
    builder = make_builder()
    version, path = next(iter(builder._interpreters.items()))
    online = CHILD.replace("index=IndexOptions(find_links=(Path(wheels),), no_index=True), ", "")
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", online, str(builder.cache.root), "-", version, str(path)),
        env={**os.environ, "UV_DEFAULT_INDEX": hanging_index, "HOME": str(tmp_path)},
        stdout=asyncio.subprocess.PIPE,
    )
    assert child.stdout is not None
    while "… resolving" not in (await asyncio.wait_for(child.stdout.readline(), 30)).decode():
        pass
    # Below the installer there may be, for a moment, an interpreter that it asks for its version.
    [installer] = psutil.Process(child.pid).children()
    assert EnvironmentCache(builder.cache.root).sweep() == 0  # it is alive: hands off
    child.kill()
    await child.wait()
    assert installer.is_running()
    assert EnvironmentCache(builder.cache.root).sweep() == 1
    assert psutil.wait_procs([installer], timeout=10)[0]
