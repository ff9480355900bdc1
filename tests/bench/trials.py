"""One-epoch Keras trials: the first training step, memory while training, a sweep of twenty.

Each is a process of its own: bare under the environment's interpreter, or a run of the platform.
"""

import itertools
import json
import os
import statistics
import subprocess
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from keras_run import EXAMPLE, bare_environment
from measure import Report, SkippedError, memory_of, summary
from stack import Stack, log_text, wait_terminal

from stellwerk import Dataset, Environment, Experiment, ScriptRunConfig, StellwerkError, Workspace

TRIAL = Path(__file__).parent / "trial"
ROUNDS = int(os.environ.get("STELLWERK_BENCH_KERAS_ROUNDS", "5"))
SWEEPS = int(os.environ.get("STELLWERK_BENCH_SWEEPS", "3"))
GRID = tuple(
    {"batch": batch, "neurons": neurons, "rate": rate}
    for batch, neurons, rate in itertools.product(
        (25, 50), (50, 100, 200, 300, 400), (0.001, 0.002)
    )
)

Options = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Trial:
    """What one trial came to; ``first_step_s`` counts from the moment somebody asked for it."""

    first_step_s: float
    pss_mib: float
    accuracy: float


@dataclass
class Trials:
    """Both ways to run them. ``python`` is the interpreter of the environment in use."""

    stack: Stack
    workspace: Workspace
    data: Dataset
    python: Path = Path()

    def bare(self, options: Options) -> Trial:
        """A process under the same interpreter."""
        command = [str(self.python), str(TRIAL / "trial.py"), "--data", str(EXAMPLE / "data")]
        started = time.monotonic()
        done = subprocess.run(
            [*command, *_arguments(options)],
            env=bare_environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return _read(done.stdout, started)

    def submit(self, options: Options, environment: Environment, warm: str = "require") -> Any:
        """A run, and when it was asked for."""
        config = ScriptRunConfig(
            source_directory=str(TRIAL),
            script="trial.py",
            arguments=[
                "--data",
                self.data.as_named_input("mnist").as_mount(),
                *_arguments(options),
            ],
            compute_target="bench",
            environment=environment,
            warm=warm,
        )
        started = time.monotonic()
        return Experiment(self.workspace, "bench-trials").submit(config).id, started

    def result(self, run_id: str, started: float) -> Trial:
        """Wait for a run."""
        with self.stack.http(timeout=900) as http:
            view = wait_terminal(http, run_id, 900)
            if view["status"] != "Completed":
                raise SkippedError(f"a trial ended as {view['status']}: {view['error']}")
            self.python = self.stack.home / "environments" / view["image"]["env_id"] / "bin/python"
            return _read(log_text(http, run_id), started)

    def run(self, options: Options, environment: Environment, warm: str = "require") -> Trial:
        """One run from submission to its end."""
        return self.result(*self.submit(options, environment, warm))

    def sweep(self, environment: Environment) -> tuple[float, list[float]]:
        """All of the grid, as many at a time as there are nodes: seconds, and the accuracies."""
        started = time.monotonic()
        asked = [self.submit(options, environment) for options in GRID]
        found = [self.result(*each).accuracy for each in asked]
        return time.monotonic() - started, found

    def bare_sweep(self) -> tuple[float, list[float]]:
        """All of the grid, two processes at a time."""
        started = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            found = [each.accuracy for each in pool.map(self.bare, GRID)]
        return time.monotonic() - started, found


def environment(round_: int = 0) -> Environment:
    """The example's environment. One with another ``round_`` has a warm process of its own."""
    made = Environment.from_conda_specification(
        name=f"trials-{round_}", file_path=str(EXAMPLE / "conda_dependencies.yml")
    )
    made.environment_variables.update(
        {"TF_ENABLE_ONEDNN_OPTS": "0", "MPL_BENCH_ROUND": str(round_)}
    )
    return made


def opened(stack: Stack) -> Trials:
    """Environment built, data registered, one warm process loaded. Raises SkippedError."""
    workspace = Workspace(stack.client_file["url"], stack.client_file["token"])
    data = Dataset.File.upload_directory(
        src_dir=str(EXAMPLE / "data"),
        target=(workspace.get_default_datastore(), "bench"),
        pattern="*.gz",
        show_progress=False,
    )
    trials = Trials(stack, workspace, data)
    try:
        trials.run({"images": 1000}, environment())
    except StellwerkError as error:
        raise SkippedError(f"the environment cannot be prepared: {error.message}") from error
    return trials


def first_step(stack: Stack, report: Report) -> None:
    """Asked for → first training step, warm over bare, with the timeline's own figures."""
    trials = opened(stack)
    options = {"images": 6000}
    rounds = [
        (trials.bare(options).first_step_s, trials.run(options, environment()).first_step_s)
        for _ in range(ROUNDS)
    ]
    bare, mine = zip(*rounds, strict=True)
    value = statistics.median(mine) / statistics.median(bare)
    report.add(
        "warm.first_step_over_bare",
        value,
        "ratio",
        "<= 0.40",
        value <= 0.40,
        bare_s=summary(bare),
        platform_s=summary(mine),
        **summary([a / b for a, b in zip(mine, bare, strict=True)]),
    )


def memory(stack: Stack, report: Report) -> None:
    """Proportional memory of a run in training, two at a time, warm over bare.

    The warm process stays besides, whatever number of runs there is: its own share is told.
    """
    trials, options = opened(stack), {"images": 10_000}
    bare, mine, resident = [], [], []
    for _ in range((ROUNDS + 1) // 2):
        with ThreadPoolExecutor(2) as pool:
            bare += [each.pss_mib for each in pool.map(trials.bare, [options] * 2)]
        asked = [trials.submit(options, environment()) for _ in range(2)]
        mine += [trials.result(*each).pss_mib for each in asked]
        resident.append(_warm_processes(stack) / 2**20)
    value = statistics.median(mine) / statistics.median(bare)
    report.add(
        "warm.pss_in_training_over_bare",
        value,
        "ratio",
        "<= 0.80",
        value <= 0.80,
        bare_mib=summary(bare),
        platform_mib=summary(mine),
        warm_process_alone_mib=summary(resident),
    )


def sweep(stack: Stack, report: Report) -> None:
    """Twenty one-epoch trials, two at a time, the warm process's own start within."""
    trials = opened(stack)
    ratios, seconds, bare, seen = [], [], [], set()
    for round_ in range(1, SWEEPS + 1):
        alone, theirs = trials.bare_sweep()
        took, ours = trials.sweep(environment(round_))
        bare.append(alone)
        seconds.append(took)
        ratios.append(took / alone)
        seen |= {tuple(theirs), tuple(ours)}
    value = statistics.median(ratios)
    report.add(
        "sweep.wall_over_bare",
        value,
        "ratio",
        "<= 0.62",
        value <= 0.62 and len(seen) == 1,
        trials=len(GRID),
        results_seen=len(seen),
        bare_s=summary(bare),
        platform_s=summary(seconds),
        **summary(ratios),
    )


def _warm_processes(stack: Stack) -> int:
    """Proportional memory in bytes of those that have frameworks loaded, no run beside them.

    Behind walls they are nobody's children: their command names the executor's folder.
    """
    found = []
    for each in psutil.process_iter(["cmdline"]):
        words = each.info["cmdline"] or []
        if "keras" in words and any(str(stack.home) in word for word in words):
            found.append(each.pid)
    return memory_of(found)


def _arguments(options: Options) -> Sequence[str]:
    return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def _read(output: bytes, started: float) -> Trial:
    seen = json.loads(output.splitlines()[-1])
    return Trial(seen["first_step"] - started, seen["pss_mib"], seen["accuracy"])
