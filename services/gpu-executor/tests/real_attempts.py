"""Real attempts for the launcher's tests."""

import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import stellwerk_agent
from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.notify import NotifyServer

AGENT = str(Path(stellwerk_agent.__file__).parents[1])


def request(folder: Path, script: str, attempt: int = 1, **options: Any) -> LaunchRequest:
    """A Python script to run; its working folder is a neighbour of the attempt's folder."""
    work = folder.with_name(folder.name + "-work")
    work.mkdir(parents=True, exist_ok=True)
    (work / "main.py").write_text(script)
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": AGENT, "PYTHONUNBUFFERED": "1"}
    options.setdefault("argv", [sys.executable, "main.py"])
    options.setdefault("python", Path(sys.executable))
    options["env"] = env | options.get("env", {})
    return LaunchRequest(
        folder=folder, run_id="run-a", attempt=attempt, cwd=options.pop("cwd", work), **options
    )


async def log_holds(handle: ProcessHandle, text: bytes) -> bytes:
    """Wait until the log holds `text`; woken by the supervisor's datagrams alone."""
    while text not in (content := read(handle.attempt.log)):
        assert handle.alive(), content[-2000:]
        handle.activity.clear()
        if text not in read(handle.attempt.log):
            await handle.activity.wait()
    return content


def read(path: Path) -> bytes:
    return path.read_bytes() if path.exists() else b""


@asynccontextmanager
async def launcher(folder: Path, gpus: Sequence[str] = ()) -> AsyncIterator[ProcessLauncher]:
    notify = NotifyServer(folder / "notify.sock")
    await notify.start()
    service = ProcessLauncher(notify, gpus=gpus)
    try:
        yield service
    finally:
        await service.close()
        await notify.close()


def is_gone(pid: int) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def attempt_of(folder: Path) -> AttemptDir:
    return AttemptDir(folder)
