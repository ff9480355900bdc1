"""The service is killed at every step of a build; the run gets its environment all the same."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stellwerk.environment_spec import from_packages
from stellwerk.events import ImageReady
from stellwerk_kit.testing import NatsServer

MakeWheel = Callable[..., Path]
NAME = "environment-build"

POINTS = [
    f"{NAME}.before_build",
    f"{NAME}.resolved",
    f"{NAME}.installed",
    f"{NAME}.before_rename",
    f"{NAME}.before_publish",
    f"{NAME}.before_finish",
    f"{NAME}.after_publish",
    f"{NAME}-runs.before_ack",
]


@pytest.mark.parametrize("point", POINTS)
async def test_run_gets_its_environment_though_the_service_is_killed(
    seen: Any, nats_server: NatsServer, make_wheel: MakeWheel, tmp_path: Path, point: str
) -> None:
    make_wheel("alpha")
    (tmp_path / "fired").mkdir()
    first = await service(nats_server, tmp_path, point)
    await seen.prepare("run-1", from_packages(["alpha"]))
    assert await asyncio.wait_for(first.wait(), 60) == -signal.SIGKILL
    second = await service(nats_server, tmp_path, point)
    try:
        image = await seen.ready("run-1", 60)
        assert (tmp_path / "environments" / image.env_id / "bin/python").exists()
        await seen.prepare("run-2", from_packages(["alpha"]))
        assert (await seen.ready("run-2")).cached
        distinct = {each.event_id() for each in seen.about("run-1", ImageReady)}
        assert len(distinct) == 1
        assert not list((tmp_path / "environments/.building").iterdir())
    finally:
        second.terminate()
        assert await asyncio.wait_for(second.wait(), 30) == 0


async def test_an_answer_that_nobody_wrote_down_is_given_again(
    seen: Any, nats_server: NatsServer, make_wheel: MakeWheel, tmp_path: Path
) -> None:
    make_wheel("alpha")
    (tmp_path / "fired").mkdir()
    first = await service(nats_server, tmp_path)
    await seen.prepare("run-1", from_packages(["alpha"]))
    await seen.ready("run-1", 60)
    first.terminate()
    assert await asyncio.wait_for(first.wait(), 30) == 0
    second = await service(nats_server, tmp_path, f"{NAME}-runs.before_ack")
    await seen.prepare("run-2", from_packages(["alpha"]))
    assert await asyncio.wait_for(second.wait(), 60) == -signal.SIGKILL
    third = await service(nats_server, tmp_path)
    try:
        await seen.prepare("run-3", from_packages(["alpha"]))
        for run_id in ("run-2", "run-3"):
            assert (await seen.ready(run_id)).cached
        consumer = f"{NAME}-runs"
        while (await seen.bus.js.consumer_info("SW_EVENTS", consumer)).num_ack_pending:
            await asyncio.sleep(0.05)
        subject = f"sw.evt.image.{(await seen.ready('run-2')).env_id}.ready"
        info = await seen.bus.js.stream_info("SW_EVENTS", subjects_filter=subject)
        assert info.state.subjects == {subject: 3}
    finally:
        third.terminate()
        assert await asyncio.wait_for(third.wait(), 30) == 0


async def service(
    nats_server: NatsServer, folder: Path, point: str | None = None
) -> asyncio.subprocess.Process:
    """The service as a process on ``folder``, killed at ``point`` once."""
    environ = {
        **os.environ,
        "PATH": "/usr/bin:/bin",
        "PYENV_ROOT": str(folder),
        "STELLWERK_NATS_URL": nats_server.url,
        "STELLWERK_DATA_DIR": str(folder / "data"),
        "STELLWERK_ENVIRONMENTS_DIR": str(folder / "environments"),
        "STELLWERK_BUILD_FIND_LINKS": f'["{folder / "wheels"}"]',
        "STELLWERK_BUILD_NO_INDEX": "1",
        "STELLWERK_TIME_PROFILE": "test",
        "STELLWERK_FAILPOINTS_DIR": str(folder / "fired"),
    }
    if point is not None:
        environ["STELLWERK_FAILPOINTS"] = f"{point}=kill"
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stellwerk_environment_build"),
        env=environ,
        stderr=asyncio.subprocess.DEVNULL,
    )
