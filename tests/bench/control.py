"""The control plane alone: broker and scheduler are real, whoever works for them is a script.

How many runs a second come into being, start, end and are recorded, each step durable; and what a
decision costs with 1,000 and with 100,000 runs in the queue.
"""

import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import psutil
from many import NOOPS, spawn
from measure import Report, cpu_of, summary
from sqlalchemy import create_engine, insert, select
from stack import Stack

from stellwerk.events import Envelope, Event, decode
from stellwerk_kit import topology
from stellwerk_kit.bus import Bus
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import NatsServer
from stellwerk_kit.wire import Message

sys.path.append(str(Path(__file__).parent.parent.parent / "services/scheduler/tests"))

from scripted_facts import archived, exited, image_ready, joined, scaled, started, submitted

RUNS, ROUNDS = 1_000, 3
SLOTS = 64
DECISIONS = 1_000
SHORT, LONG = 1_000 + DECISIONS, 100_000
MLFLOW_OF_SPAWN = 0.37
"""MLflow Projects' runs a second over those of ``python -c pass``, two at a time each."""


class Others:
    """Everybody but the scheduler, answering at once; ``count`` is what the scheduler said."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._stored, self._said = 0, 0
        self.count: Counter[str] = Counter()
        self.changed = asyncio.Event()

    async def listen(self) -> None:
        """Begin to answer."""
        await self._bus.client.listen("sw.evt.run.>", self._run)
        await self._bus.client.listen("sw.evt.pool.>", self._pool)
        await self._bus.flush()

    def say(self, event: Event) -> None:
        """State a fact; the broker has it when :meth:`all_stored` returns."""
        self._said += 1
        envelope = Envelope.wrap(event, source="/bench", time=datetime.now(UTC))
        self._bus.store(event.subject(), event.data(), envelope.headers(), self._told)

    async def until(self, verb: str, wanted: int) -> None:
        """Wait until the scheduler has said so many of ``verb``."""
        async with asyncio.timeout(600):
            while self.count[verb] < wanted:
                self.changed.clear()
                await self.changed.wait()

    def _told(self, error: Exception | None) -> None:
        if error is not None:
            raise error
        self._stored += 1

    def _run(self, message: Message) -> None:
        run_id, verb = message.subject.split(".")[3:5]
        self.count[verb] += 1
        if verb == "preparing":
            self.say(image_ready(run_id, build=self.count[verb]))
        elif verb == "assigned":
            self.say(started(run_id))
        elif verb == "started":
            self.say(exited(run_id))
        elif verb == "finalizing":
            self.say(archived(run_id))
        self.changed.set()

    def _pool(self, message: Message) -> None:
        event = decode(message.subject, message.headers, message.data).event
        self.say(scaled(event))  # type: ignore[arg-type]  # nothing else is said about a pool
        self.count["pool"] += 1
        self.changed.set()


def control(_: Stack, report: Report) -> None:
    """Runs a second through RunSubmitted … RunCompleted, and of ``python -c pass`` beside them."""
    rates, ratios = [], []
    for number in range(ROUNDS):
        wall, _ = spawn()
        with tempfile.TemporaryDirectory() as folder:
            rates.append(asyncio.run(control_rate(Path(folder), number)))
        ratios.append(rates[-1] * wall / NOOPS)
    value = statistics.median(ratios)
    goal = 10 * MLFLOW_OF_SPAWN
    report.add(
        "control.runs_per_s_over_spawn",
        value,
        "ratio",
        f">= {goal:.1f}",
        value >= goal,
        runs_per_s=summary(rates),
        **summary(ratios),
    )


async def control_rate(folder: Path, number: int) -> float:
    async with _platform(folder) as (others, pids):
        others.say(joined(max_nodes=SLOTS))
        await asyncio.sleep(0.2)
        before, began = [cpu_of([pid]) for pid in pids], time.perf_counter()
        for run in range(RUNS):
            others.say(submitted(f"c{number}-{run}"))
        await others.until("completed", RUNS)
        seconds = time.perf_counter() - began
        used = [(cpu_of([pid]) - was) / RUNS * 1e3 for pid, was in zip(pids, before, strict=True)]
        print(f"broker and scheduler: {used[0]:.1f} and {used[1]:.1f} ms a run", file=sys.stderr)
        assert others.count["started"] == RUNS, others.count
        return RUNS / seconds


def backlog(_: Stack, report: Report) -> None:
    """Decisions a second, CPU a decision and memory behind 1,000 and 100,000 queued runs."""
    rate, cpu, memory = {}, {}, {}
    for queued in (SHORT, LONG):
        with tempfile.TemporaryDirectory() as folder:
            rate[queued], cpu[queued], memory[queued] = asyncio.run(_behind(Path(folder), queued))
    report.add(
        "backlog.decisions_per_s", rate[LONG], "1/s", ">= 100", rate[LONG] >= 100, queued=LONG
    )
    value = cpu[LONG] / cpu[SHORT]
    report.add(
        "backlog.cost_over_short_queue",
        value,
        "ratio",
        "<= 1.5",
        value <= 1.5,
        scheduler_cpu_ms_per_run={queued: round(ms, 2) for queued, ms in cpu.items()},
    )
    value = memory[LONG] / memory[SHORT]
    report.add(
        "backlog.memory_over_short_queue",
        value,
        "ratio",
        "<= 1.2",
        value <= 1.2,
        scheduler_mb={queued: round(size / 1e6, 1) for queued, size in memory.items()},
    )


async def _behind(folder: Path, queued: int) -> tuple[float, float, int]:
    _fill(folder, queued)
    async with _platform(folder) as (others, pids):
        scheduler = pids[1]
        before, began = cpu_of([scheduler]), time.perf_counter()
        others.say(joined(max_nodes=SLOTS))
        await others.until("completed", DECISIONS)
        seconds = time.perf_counter() - began
        used = cpu_of([scheduler]) - before
        return (
            DECISIONS / seconds,
            used / DECISIONS * 1e3,
            psutil.Process(scheduler).memory_info().rss,
        )


def _fill(folder: Path, queued: int) -> None:
    """A scheduler's store with so many queued runs: one that it queued itself, copied."""
    from ledger import Ledger

    from stellwerk_scheduler.tables import metadata, runs

    data = folder / "data"
    data.mkdir()
    url = f"sqlite:///{data}/scheduler.db"
    ledger = Ledger(data / "scheduler.db")
    ledger.hear(submitted("first"), image_ready("first"))
    outbox = metadata.tables["outbox"]
    engine = create_engine(url)
    with engine.begin() as conn:
        conn.execute(outbox.delete())
        pattern = dict(conn.execute(select(runs)).mappings().one())
        del pattern["number"]
        conn.execute(insert(runs), list(_copies(pattern, queued)))
    engine.dispose()
    ledger.engine.dispose()


def _copies(pattern: dict[str, object], count: int) -> Iterator[dict[str, object]]:
    for number in range(count):
        run_id = f"q{number}"
        text = str(pattern["submitted"]).replace('"run_id":"first"', f'"run_id":"{run_id}"')
        yield {**pattern, "run_id": run_id, "submitted": text}


@asynccontextmanager
async def _platform(folder: Path) -> AsyncIterator[tuple[Others, list[int]]]:
    """A broker, a scheduler process, and everybody else; their process ids."""
    server = NatsServer(folder / "nats").start()
    bus = await Bus.connect(ServiceSettings(nats_url=server.url), "bench")
    try:
        await topology.apply(bus.js)
        others = Others(bus)
        await others.listen()
        with _scheduler(folder, server.url) as scheduler:
            assert server.process is not None
            yield others, [server.process.pid, scheduler]
    finally:
        await bus.close()
        server.stop()


@contextmanager
def _scheduler(folder: Path, url: str) -> Iterator[int]:
    environment = {
        **os.environ,
        "STELLWERK_NATS_URL": url,
        "STELLWERK_DATA_DIR": str(folder / "data"),
        "STELLWERK_LOCAL_MAX_NODES": str(SLOTS),
        "STELLWERK_LOCAL_IDLE_S": "3600",
    }
    log = folder / "scheduler.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "stellwerk_scheduler"], env=environment, stderr=out
        )
    try:
        _until_ready(log, process)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def _until_ready(log: Path, process: subprocess.Popen[bytes]) -> None:
    while b'"ready"' not in log.read_bytes():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
