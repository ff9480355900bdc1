"""One epoch of Keras on MNIST as a run, against the bare script in the same environment."""

import os
import statistics
import tempfile
from pathlib import Path

import psutil
from measure import Report, SkippedError, child_cpu, summary
from stack import Stack, request, wait_terminal

from stellwerk import Dataset, Environment, Experiment, ScriptRunConfig, StellwerkError, Workspace

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "training" / "examples" / "keras-mnist"
AGENT = ROOT / "training" / "agent" / "src"
ROUNDS = int(os.environ.get("STELLWERK_BENCH_KERAS_ROUNDS", "5"))
VARIABLES = {"TF_ENABLE_ONEDNN_OPTS": "0"}
OPTIONS = ["--batch-size", "50", "--epochs", "1"]


def keras(stack: Stack, report: Report) -> None:
    """CPU seconds of run, supervisor and executor over the bare script's; equal accuracy."""
    workspace = Workspace(stack.client_file["url"], stack.client_file["token"])
    platform, bare, accuracies = [], [], set()
    try:
        config = _config(workspace)
        env_id = _run(stack, workspace, config)[2]  # builds the environment, fills the node cache
    except StellwerkError as error:
        raise SkippedError(f"the environment cannot be prepared: {error.message}") from error
    python = stack.home / "environments" / env_id / "bin" / "python"
    for _ in range(ROUNDS):
        cpu, accuracy = _bare(python)
        bare.append(cpu)
        accuracies.add(accuracy)
        cpu, accuracy, _ = _run(stack, workspace, config)
        platform.append(cpu)
        accuracies.add(accuracy)
    ratios = [mine / alone for mine, alone in zip(platform, bare, strict=True)]
    value = statistics.median(platform) / statistics.median(bare)
    report.add(
        "keras.cpu_over_bare",
        value,
        "ratio",
        "<= 1.10",
        value <= 1.10,
        run_and_executor_cpu_s=summary(platform),
        bare_cpu_s=summary(bare),
        **summary(ratios),
    )
    same = len(accuracies) == 1
    report.add(
        "keras.accuracies", float(len(accuracies)), "values", "1", same, seen=sorted(accuracies)
    )


def _config(workspace: Workspace) -> ScriptRunConfig:
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
    )


def _run(stack: Stack, workspace: Workspace, config: ScriptRunConfig) -> tuple[float, float, str]:
    """CPU seconds, test accuracy and environment of one run.

    The executor is the parent of each supervisor: its own time and that of the children it has
    reaped hold all that the node spends.
    """
    executor = psutil.Process(stack.processes()["gpu-executor"])
    before = sum(executor.cpu_times()[:4])
    run_id = Experiment(workspace, "bench-keras").submit(config).id
    with stack.http() as http:
        view = wait_terminal(http, run_id, 900)
        if view["status"] != "Completed":
            raise SkippedError(f"the run ended as {view['status']}: {view['error']}")
        points = request(
            "GET", http, f"/runs/{run_id}/metrics", params={"name": "Final test accuracy"}
        ).json()
    used = sum(executor.cpu_times()[:4]) - before
    accuracy = points["points"][-1]["value"]
    return max(used, view["exit"]["cpu_s"]), float(accuracy), str(view["image"]["env_id"])


def _bare(python: Path) -> tuple[float, float]:
    """CPU seconds and test accuracy of the script alone, its metrics printed."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **{
                name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"
            },
            **VARIABLES,
            "PYTHONPATH": str(AGENT),
            "MPLCONFIGDIR": tempfile.gettempdir(),
        }
        script = [str(python), str(EXAMPLE / "train" / "keras_mnist.py"), *OPTIONS]
        command = [*script, "--data-folder", str(EXAMPLE / "data")]
        with Path(folder, "out.txt").open("w") as out:
            _, cpu = child_cpu(command, cwd=folder, env=environment, stdout=out)
        text = Path(folder, "out.txt").read_text()
    return cpu, _last_value(text)


def _last_value(text: str) -> float:
    """The test accuracy as the library prints it outside a run: on the line after its name."""
    lines = text.splitlines()
    for name, value in zip(lines[-2::-1], lines[:0:-1], strict=True):
        if name.endswith("metric Final test accuracy:"):
            return float(value)
    raise SkippedError("the bare script printed no test accuracy")
