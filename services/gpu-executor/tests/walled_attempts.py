"""Real attempts in a real sandbox, for its tests."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from real_attempts import AGENT, read, request

from stellwerk_gpu_executor.attempt_dir import ExitRecord
from stellwerk_gpu_executor.isolation import Isolation, isolate
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.settings import Settings
from stellwerk_kit.testing.host import lacking


def lay_out(folder: Path) -> Path:
    """A node's folder with the platform's secrets beside it."""
    for name in ("executor/attempts/other-1/work", "environments", "data", "secrets"):
        (folder / name).mkdir(parents=True)
    (folder / "secrets/s3.json").write_text("keys")
    (folder / "executor/attempts/other-1/work/weights").write_text("theirs")
    return folder


def walls(node: Path, **changes: Any) -> Isolation:
    """What this machine can do; that it can is a condition of these tests, not their result."""
    found = isolate(
        Settings(
            executor_dir=node / "executor",
            environments_dir=node / "environments",
            data_dir=node / "data",
            s3_credentials=node / "secrets/s3.json",
            **changes,
        )
    )
    if found.views is None:
        lacking("no sandbox here")
    return found


@asynccontextmanager
async def walled(
    node: Path, *, gpus: Sequence[str] = (), **changes: Any
) -> AsyncIterator[ProcessLauncher]:
    found = walls(node, **changes)  # first: it may end the test
    notify = NotifyServer(node / "notify.sock")
    await notify.start()
    service = ProcessLauncher(notify, walls=found, gpus=gpus)
    try:
        yield service
    finally:
        await service.close()
        await notify.close()
        found.groups.sweep(())  # of attempts that the test did not remove
        await found.close()


def attempt(node: Path, script: str, name: str = "run-a-1", **options: Any) -> LaunchRequest:
    folder = node / "executor/attempts" / name
    for part in ("work", "home", "tmp"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "work/main.py").write_text(script)
    options.setdefault("readable", (Path(AGENT),))
    return replace(request(node / "spare", script, **options), folder=folder, cwd=folder / "work")


async def run(node: Path, script: str, **options: Any) -> tuple[ExitRecord, str]:
    changes = options.pop("settings", {})
    async with walled(node, **changes) as service:
        handle = await service.start(attempt(node, script, **options))
        record = await handle.wait()
        text = read(handle.attempt.log).decode()
        assert not (handle.attempt.path / "shim.log").exists()
        await service.cleanup(handle.attempt)
    return record, text


def needs(found: Isolation, controller: str) -> None:
    if controller not in found.groups.folders:
        lacking(f"the control group {controller} cannot be used here")
