"""``make bench-peers``: MLflow Projects, Ray Jobs and Ray Tune beside the platform, in turn.

Each peer is installed in a virtual environment of its own under ``.bench-peers/``, with the pins of
``peers/*.txt``; the project does not depend on them. Rows go to ``bench-results/``.
"""

import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
PEERS = Path(__file__).parent / "peers"
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from control import control_rate
from figures import Figure, main
from keras_run import EXAMPLE, bare_environment
from latency import HELLO, follow
from measure import ROUNDS, Report, SkippedError, summary, timed
from stack import Stack, run_body, submit
from trials import GRID, SWEEPS, TRIAL, environment, opened

INSTALLED = Path(os.environ.get("STELLWERK_BENCH_PEERS", ROOT / ".bench-peers"))
NOOPS = 10
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",  # loopback only
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
}


def python_of(peer: str) -> Path:
    """A peer's interpreter, installed from its pins when it is first needed, with bytecode."""
    python = INSTALLED / peer / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).with_name("uv"))
        print(f"installing {peer} …", file=sys.stderr, flush=True)
        subprocess.run([uv, "venv", "-q", "-p", sys.executable, str(python.parents[1])], check=True)
        install = [uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(python)]
        subprocess.run([*install, "-r", str(PEERS / f"{peer}.txt")], check=True)
    return python


class Driver:
    """A peer's warm client: a process that answers lines of JSON with lines of JSON."""

    def __init__(self, command: list[str], folder: Path) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
        self._log = folder / "driver.log"
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment | QUIET,
                cwd=folder,
            )
        self._until(lambda line: line.startswith("{"))

    def ask(self, **question: Any) -> tuple[dict[str, Any], float]:
        """The answer, and after how many seconds the first other line came, 0 if none did."""
        assert self._process.stdin is not None
        started, first = time.perf_counter(), [0.0]
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

        def is_answer(line: str) -> bool:
            if not line.startswith("{") and not first[0]:
                first[0] = time.perf_counter() - started
            return line.startswith("{")

        return json.loads(self._until(is_answer)), first[0]

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)

    def _until(self, good: Callable[[str], bool]) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if good(line):
                return line
        raise SkippedError(f"a peer's client ended: {self._log.read_text()[-1500:]}")


@contextmanager
def mlflow(count: int = 1) -> Iterator[list[Driver]]:
    """Warm clients of MLflow Projects that share one SQLite store."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python_of("mlflow")), str(PEERS / "mlflow_driver.py")]
        drivers = [Driver([*command, f"{folder}/p{n}"], Path(folder)) for n in range(count)]
        yield drivers
        for driver in drivers:
            driver.close()


@contextmanager
def ray_jobs() -> Iterator[Driver]:
    """A warm client of Ray Jobs and a head node on loopback."""
    python = python_of("ray")
    ray = str(python.with_name("ray"))
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "hello.py")
        script.write_text(HELLO)
        head = "start --head --num-cpus 2 --node-ip-address 127.0.0.1 --dashboard-port 28265"
        quiet = {"env": {**os.environ, **QUIET}, "stdout": subprocess.DEVNULL}
        subprocess.run([ray, *head.split(), "--disable-usage-stats"], check=True, **quiet)
        try:
            address = "http://127.0.0.1:28265"
            driver = [str(python), str(PEERS / "ray_jobs.py"), address, str(script)]
            client = Driver(driver, Path(folder))
            yield client
            client.close()
        finally:
            subprocess.run([ray, "stop"], check=False, **quiet)


def hello_mlflow(stack: Stack, report: Report) -> None:
    """hello of a warm client: first line and completed, over MLflow Projects'."""
    with mlflow() as (driver,):

        def theirs() -> tuple[float, float]:
            answer, first = driver.ask(script="hello", count=1)
            return first, answer["seconds"]

        _compare_hello(stack, report, "mlflow", theirs, 0.5, 0.6)


def hello_ray(stack: Stack, report: Report) -> None:
    """The same against Ray Jobs."""
    with ray_jobs() as driver:

        def theirs() -> tuple[float, float]:
            answer, _ = driver.ask()
            return answer["first_line"], answer["completed"]

        _compare_hello(stack, report, "ray_jobs", theirs, 0.5, 0.6)


def _compare_hello(
    stack: Stack,
    report: Report,
    peer: str,
    theirs: Callable[[], tuple[float, float]],
    line_goal: float,
    end_goal: float,
) -> None:
    rounds = []
    with stack.http() as http:
        for _ in range(ROUNDS + 2):
            other = theirs()
            started = time.perf_counter()
            first, done = follow(http, submit(http, run_body(HELLO, target="bench")))
            rounds.append((first - started, done - started, *other))
    mine_first, mine_done, first_line, completed = zip(*rounds[2:], strict=True)
    for name, mine, other, goal in (
        ("first_line", mine_first, first_line, line_goal),
        ("completed", mine_done, completed, end_goal),
    ):
        value = statistics.median(mine) / statistics.median(other)
        report.add(
            f"hello.{name}_over_{peer}",
            value,
            "ratio",
            f"<= {goal}",
            value <= goal,
            platform_s=summary(mine),
            peer_s=summary(other),
        )


def control_mlflow(_: Stack, report: Report) -> None:
    """The control plane alone, runs a second, over no-op runs of two MLflow clients."""
    ratios, mine, theirs = [], [], []
    with mlflow(2) as drivers:

        def both() -> None:
            with ThreadPoolExecutor(2) as pool:
                list(pool.map(lambda each: each.ask(script="noop", count=NOOPS), drivers))

        both()
        for number in range(3):
            theirs.append(2 * NOOPS / timed(both))
            with tempfile.TemporaryDirectory() as folder:
                mine.append(asyncio.run(control_rate(Path(folder), number)))
            ratios.append(mine[-1] / theirs[-1])
    value = statistics.median(ratios)
    report.add(
        "control.rate_over_mlflow",
        value,
        "ratio",
        ">= 10",
        value >= 10,
        platform_per_s=summary(mine),
        peer_per_s=summary(theirs),
        **summary(ratios),
    )


def sweep_ray(stack: Stack, report: Report) -> None:
    """Twenty one-epoch trials, two at a time, over Ray Tune's with reused actors, starts within."""
    trials, python = opened(stack), python_of("ray")
    command = [str(python), str(PEERS / "ray_sweep.py"), str(TRIAL), str(EXAMPLE / "data")]
    quiet = {"TF_ENABLE_ONEDNN_OPTS": "0", "TF_CPP_MIN_LOG_LEVEL": "3", **QUIET}
    ratios, ours, theirs, seen = [], [], [], set()
    for round_ in range(101, 101 + SWEEPS):
        started = time.perf_counter()
        done = subprocess.run(
            command,
            input=json.dumps(GRID),
            env={**bare_environment(), **quiet},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
        theirs.append(time.perf_counter() - started)
        took, found = trials.sweep(environment(round_))
        ours.append(took)
        ratios.append(took / theirs[-1])
        seen |= {tuple(found), tuple(json.loads(done.stdout.splitlines()[-1]))}
    value = statistics.median(ratios)
    report.add(
        "sweep.wall_over_ray_tune",
        value,
        "ratio",
        "<= 0.95",
        value <= 0.95,
        trials=len(GRID),
        results_seen=len(seen),
        platform_s=summary(ours),
        peer_s=summary(theirs),
        **summary(ratios),
    )


FIGURES: dict[str, Figure] = {
    "hello_mlflow": hello_mlflow,
    "control_mlflow": control_mlflow,
    "hello_ray": hello_ray,
    "sweep_ray": sweep_ray,
}


if __name__ == "__main__":
    sys.exit(main(FIGURES, sys.argv[1:], "-peers"))
