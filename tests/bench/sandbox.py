"""What the walls around a run cost: the launcher alone, with and without them, in turn."""

import asyncio
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from measure import Report, SkippedError, summary
from stack import Stack

from stellwerk_gpu_executor.isolation import Isolation, isolate
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.settings import Settings

ROUNDS = 30


def sandbox(_stack: Stack, report: Report) -> None:
    """Start of a run's program, and the whole of a run that does nothing, over the plain ones."""
    with tempfile.TemporaryDirectory() as folder:
        walls = isolate(Settings(executor_dir=Path(folder) / "executor"))
        if walls.views is None:
            raise SkippedError("no sandbox here; stellwerk doctor says why")
        starts, wholes = asyncio.run(_rounds(Path(folder), walls))
    for name, found in (("start", starts), ("whole", wholes)):
        value = statistics.median(found)
        report.add(f"sandbox.{name}", value, "ms", "<= 20", value <= 20, **summary(found))


async def _rounds(folder: Path, walls: Isolation) -> tuple[list[float], list[float]]:
    notify = NotifyServer(folder / "notify.sock")
    await notify.start()
    launchers = [ProcessLauncher(notify), ProcessLauncher(notify, walls=walls)]
    starts, wholes = [], []
    for number in range(ROUNDS + 2):
        plain, walled = [await _run(each, folder, number) for each in launchers]
        if number >= 2:
            starts.append((walled[0] - plain[0]) * 1000)
            wholes.append((walled[1] - plain[1]) * 1000)
    for each in launchers:
        await each.close()
    await notify.close()
    return starts, wholes


async def _run(launcher: ProcessLauncher, folder: Path, number: int) -> tuple[float, float]:
    attempt = folder / "executor/attempts" / f"{id(launcher)}-{number}"
    for name in ("work", "tmp"):
        (attempt / name).mkdir(parents=True)
    request = LaunchRequest(
        folder=attempt, run_id="bench", attempt=1, argv=[sys.executable, "-c", "pass"],
        cwd=attempt / "work", env={"PATH": "/usr/bin:/bin"},
        python=Path(sys.executable),
    )  # fmt: skip
    begun = time.perf_counter()
    handle = await launcher.start(replace(request, attempt=number + 1))
    started = time.perf_counter() - begun
    await handle.wait()
    whole = time.perf_counter() - begun
    await launcher.cleanup(handle.attempt)
    return started, whole
