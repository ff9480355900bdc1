"""One epoch of Keras on MNIST as a run, cold and warm, against the bare script."""

import os
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import psutil
from latency import follow
from many import run_many
from measure import Report, SkippedError, child_cpu, summary, timed
from stack import Stack, request, run_body, submit, wait_terminal

from stellwerk import Dataset, Environment, Experiment, ScriptRunConfig, StellwerkError, Workspace

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "training" / "examples" / "keras-mnist"
AGENT = ROOT / "training" / "agent" / "src"
ROUNDS = int(os.environ.get("STELLWERK_BENCH_KERAS_ROUNDS", "5"))
VARIABLES = {"TF_ENABLE_ONEDNN_OPTS": "0"}
ONLY_HERE = ("PYTHONDONTWRITEBYTECODE", "OPENBLAS_")
"""No bytecode and another kernel of NumPy's would slow the bare script, and no run has them."""
SPAWNS, KERAS_RUNS = 4, 40
OPTIONS = ["--batch-size", "50", "--epochs", "1"]


def keras(stack: Stack, report: Report) -> None:
    """CPU seconds of run, supervisor and executor over the bare script's; equal accuracy."""
    workspace = Workspace(stack.client_file["url"], stack.client_file["token"])
    try:
        cold, warm = (_config(workspace, warm=how) for how in ("never", "require"))
        env_id = _run(stack, workspace, cold).env_id  # builds the environment, fills the cache
        _run(stack, workspace, warm)  # begins its warm process
    except StellwerkError as error:
        raise SkippedError(f"the environment cannot be prepared: {error.message}") from error
    python = stack.home / "environments" / env_id / "bin" / "python"
    rounds = [
        (_bare(python), _run(stack, workspace, cold), _run(stack, workspace, warm))
        for _ in range(ROUNDS)
    ]
    bare = [each[0] for each in rounds]
    for name, index, cpu_goal, wall_goal in (("keras", 1, 1.10, None), ("warm", 2, 0.72, 0.80)):
        mine = [each[index] for each in rounds]
        _ratio(report, f"{name}.cpu_over_bare", "cpu", mine, bare, cpu_goal)
        if wall_goal is not None:
            _ratio(report, f"{name}.wall_over_bare", "wall", mine, bare, wall_goal)
    seen = {one.accuracy for each in rounds for one in each}
    report.add(
        "keras.accuracies", float(len(seen)), "values", "1", len(seen) == 1, seen=sorted(seen)
    )
    import_keras(stack, report, python, warm)


def import_keras(stack: Stack, report: Report, python: Path, config: ScriptRunConfig) -> None:
    """A script that only imports Keras, submit → completed, over the bare script."""
    script = "import keras\n"
    ratios, bare = [], []
    with stack.http() as http:
        body = run_body(script, target="bench", warm="require")
        body["spec"]["environment"] = {"name": config.environment.name}
        for _ in range(ROUNDS + 1):
            alone, _ = child_cpu([str(python), "-c", script], env=bare_environment())
            started = time.perf_counter()
            _, done = follow(http, submit(http, body))
            bare.append(alone)
            ratios.append((done - started) / alone)
        _keras_rate(http, report, python, body)
    value = statistics.median(ratios[1:])
    report.add(
        "warm.import_keras_completed_over_bare",
        value,
        "ratio",
        "<= 0.05",
        value <= 0.05,
        bare_s=summary(bare[1:]),
        **summary(ratios[1:]),
    )


def _keras_rate(http: httpx2.Client, report: Report, python: Path, body: dict[str, Any]) -> None:
    """Runs a second that have Keras imported, two slots, over spawning that two at a time."""

    def spawn(_: int) -> None:
        child_cpu([str(python), "-c", "import keras"], env=bare_environment())

    ratios = []
    for _ in range(ROUNDS):
        with ThreadPoolExecutor(2) as pool:
            alone = timed(lambda: list(pool.map(spawn, range(SPAWNS)))) / SPAWNS
        ratios.append(alone * KERAS_RUNS / run_many(http, KERAS_RUNS, body))
    value = statistics.median(ratios)
    report.add(
        "warm.keras_rate_over_spawn", value, "ratio", ">= 30", value >= 30, **summary(ratios)
    )


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of the script: seconds and its test accuracy."""

    cpu: float
    wall: float
    accuracy: float
    env_id: str = ""


def _ratio(
    report: Report, name: str, what: str, mine: list[Measured], bare: list[Measured], goal: float
) -> None:
    ours = [getattr(one, what) for one in mine]
    alone = [getattr(one, what) for one in bare]
    value = statistics.median(ours) / statistics.median(alone)
    paired = [a / b for a, b in zip(ours, alone, strict=True)]
    report.add(
        name,
        value,
        "ratio",
        f"<= {goal:.2f}",
        value <= goal,
        platform_s=summary(ours),
        bare_s=summary(alone),
        **summary(paired),
    )


def _config(workspace: Workspace, warm: str) -> ScriptRunConfig:
    data = Dataset.File.upload_directory(
        src_dir=str(EXAMPLE / "data"),
        target=(workspace.get_default_datastore(), "bench"),
        pattern="*.gz",
        show_progress=False,
    )
    packages = Environment.from_conda_specification(
        name="keras-mnist", file_path=str(EXAMPLE / "conda_dependencies.yml")
    )
    packages.environment_variables.update(VARIABLES)
    packages.register(workspace)
    return ScriptRunConfig(
        source_directory=str(EXAMPLE / "train"),
        script="keras_mnist.py",
        arguments=["--data-folder", data.as_named_input("mnist").as_mount(), *OPTIONS],
        compute_target="bench",
        environment=packages,
        warm=warm,
    )


def _node_cpu(stack: Stack) -> float:
    """CPU seconds of the executor and its fork servers, with all supervisors and runs so far."""
    executor = psutil.Process(stack.processes()["gpu-executor"])
    return sum(sum(each.cpu_times()[:4]) for each in (executor, *executor.children()))


def _run(stack: Stack, workspace: Workspace, config: ScriptRunConfig) -> Measured:
    """One run through the platform; wall time is from submission to the client's last event."""
    before, started = _node_cpu(stack), time.perf_counter()
    run_id = Experiment(workspace, "bench-keras").submit(config).id
    with stack.http(timeout=900) as http:
        _, done = follow(http, run_id)
        view = wait_terminal(http, run_id, 900)
        if view["status"] != "Completed":
            raise SkippedError(f"the run ended as {view['status']}: {view['error']}")
        points = request(
            "GET", http, f"/runs/{run_id}/metrics", params={"name": "Final test accuracy"}
        ).json()
    return Measured(
        cpu=max(_node_cpu(stack) - before, view["exit"]["cpu_s"]),
        wall=done - started,
        accuracy=float(points["points"][-1]["value"]),
        env_id=str(view["image"]["env_id"]),
    )


def bare_environment() -> dict[str, str]:
    """What a bare script gets: the caller's variables but those that a run does not have either."""
    return {
        **{name: text for name, text in os.environ.items() if not name.startswith(ONLY_HERE)},
        **VARIABLES,
        "PYTHONPATH": str(AGENT),
        "MPLCONFIGDIR": tempfile.gettempdir(),
    }


def _bare(python: Path) -> Measured:
    """The script alone, its metrics printed."""
    with tempfile.TemporaryDirectory() as folder:
        environment = bare_environment()
        script = [str(python), str(EXAMPLE / "train" / "keras_mnist.py"), *OPTIONS]
        command = [*script, "--data-folder", str(EXAMPLE / "data")]
        with Path(folder, "out.txt").open("w") as out:
            wall, cpu = child_cpu(command, cwd=folder, env=environment, stdout=out)
        text = Path(folder, "out.txt").read_text()
    return Measured(cpu, wall, _last_value(text))


def _last_value(text: str) -> float:
    """The test accuracy as the library prints it outside a run: on the line after its name."""
    lines = text.splitlines()
    for name, value in zip(lines[-2::-1], lines[:0:-1], strict=True):
        if name.endswith("metric Final test accuracy:"):
            return float(value)
    raise SkippedError("the bare script printed no test accuracy")
