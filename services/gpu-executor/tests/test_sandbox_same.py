"""What holds for plain processes holds in a sandbox: the same tests, with walls around them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import real_attempts
import test_launcher_ends as ends
import test_run_records as records
from real_attempts import AGENT

from stellwerk_gpu_executor.isolation import Isolation, isolate
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.settings import Settings
from stellwerk_kit.testing.host import lacking


@asynccontextmanager
async def launcher(folder: Path, walls: Isolation | None = None) -> AsyncIterator[ProcessLauncher]:
    """``walls``: of a node that is there already."""
    node = isolate(Settings(executor_dir=folder / "executor")) if walls is None else walls
    if node.views is None:
        lacking("no sandbox here")
    notify = NotifyServer(folder / "notify.sock")
    await notify.start()
    service = ProcessLauncher(notify, walls=node)
    try:
        yield service
    finally:
        await service.close()
        await notify.close()
        if walls is None:
            node.groups.sweep(())  # of attempts that the test did not remove
            await node.close()


def launch_request(folder: Path, script: str, attempt: int = 1, **options: Any) -> LaunchRequest:
    made = real_attempts.request(folder, script, attempt, **options)
    (folder / "tmp").mkdir(mode=0o700, parents=True, exist_ok=True)
    work = folder.with_name(folder.name + "-work")
    return replace(made, readable=(Path(AGENT),), writable=(work,))


@pytest.fixture(autouse=True)
def in_a_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (ends, records):
        monkeypatch.setattr(module, "launcher", launcher)
        monkeypatch.setattr(module, "request", launch_request)


ABOUT_OUTSIDE = {
    "test_attempt_folder_is_private",  # it lists the folder, which here has one more in it
    "test_missing_first_line_interpreter",  # its program lies where no run can see it
    "test_daemon_is_ended_with_the_run",  # process ids inside are others; test_sandbox has its own
    "test_nothing_is_lost_when_the_supervisor_sees_the_end_first",  # there is no parent in a cell
}


def shared(module: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith("test_") and name not in ABOUT_OUTSIDE
    }


globals().update(shared(ends) | shared(records))
