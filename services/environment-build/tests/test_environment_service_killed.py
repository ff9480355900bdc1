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
    environ = {
        **os.environ,
        "PATH": "/usr/bin:/bin",
        "PYENV_ROOT": str(tmp_path),
        "STELLWERK_NATS_URL": nats_server.url,
        "STELLWERK_DATA_DIR": str(tmp_path / "data"),
        "STELLWERK_ENVIRONMENTS_DIR": str(tmp_path / "environments"),
        "STELLWERK_BUILD_FIND_LINKS": f'["{tmp_path / "wheels"}"]',
        "STELLWERK_BUILD_NO_INDEX": "1",
        "STELLWERK_TIME_PROFILE": "test",
        "STELLWERK_FAILPOINTS": f"{point}=kill",
        "STELLWERK_FAILPOINTS_DIR": str(tmp_path / "fired"),
    }

    async def service() -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stellwerk_environment_build"),
            env=environ,
            stderr=asyncio.subprocess.DEVNULL,
        )

    first = await service()
    await seen.prepare("run-1", from_packages(["alpha"]))
    assert await asyncio.wait_for(first.wait(), 60) == -signal.SIGKILL
    second = await service()
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
