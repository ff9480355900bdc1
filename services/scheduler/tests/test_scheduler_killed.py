"""The real process, killed where it hurts, started again: the run ends once, without a gap."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from scripted_facts import World, exited, joined, submitted

from stellwerk.events import RunCompleted, RunStarted
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import NatsServer, wait_until


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[bytes]]]:
    started: list[subprocess.Popen[bytes]] = []
    yield started
    for process in started:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.mark.parametrize(
    "point",
    [
        "scheduler.before_commit=kill@3",
        "scheduler.after_commit=kill@3",
        "scheduler.before_publish=kill@4",
        "scheduler.after_publish=kill@4",
        "scheduler-facts.before_ack=kill@4",
    ],
)
async def test_killed_at(
    point: str,
    bus: Bus,
    nats_server: NatsServer,
    tmp_path: Path,
    processes: list[subprocess.Popen[bytes]],
) -> None:
    def start(**values: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "STELLWERK_NATS_URL": nats_server.url,
            "STELLWERK_DATA_DIR": str(tmp_path / "data"),
            "STELLWERK_TIME_PROFILE": "test",
            # What the killed process had fetched comes again after 5 s: no lease may end before.
            "STELLWERK_LEASE_S": "60",
            **values,
        }
        with (tmp_path / "log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "stellwerk_scheduler"], env=environment, stderr=log
            )
        processes.append(process)
        return process

    world = World(bus)
    world.everybody_works()
    await world.listen()
    first = start(STELLWERK_FAILPOINTS=point)
    await world.say(joined(), submitted())
    assert await asyncio.to_thread(first.wait, 30) == -signal.SIGKILL
    second = start()
    await wait_until(lambda: world.all(RunStarted), 30)
    await world.say(exited())
    await wait_until(lambda: world.all(RunCompleted), 30)
    about = {e.id: e.sequence for e in world.heard if getattr(e.event, "run_id", None) == "r1"}
    assert sorted(about.values(), key=lambda n: n or 0) == list(range(1, len(about) + 1))
    assert world.names().count("RunCompleted") == 1
    second.terminate()
    assert await asyncio.to_thread(second.wait, 20) == 0
