"""Logging and reading metrics: what a script waits for, and what a notebook waits for."""

import json
import tempfile
from pathlib import Path

from measure import Report, summary, timed
from stack import HERE, Stack, log_text, request, run_body, submit, wait_terminal

from stellwerk import Experiment, Run, Workspace

POINTS = 100_000
CHILDREN, OF_CHILD = 300, 20
ROWS = 3_000
ROUNDS = 5

SCRIPT = f"""
import json, time
from azureml.core import Run
run = Run.get_context()
started = time.perf_counter()
for number in range({ROWS}):
    run.log_row("rows", x=number, y=number * 0.5)
print(json.dumps(time.perf_counter() - started))
"""


def metrics(stack: Stack, report: Report) -> None:
    """``get_metrics()`` of one long run and of many children; ``log_row`` inside a script."""
    workspace = Workspace(stack.client_file["url"], stack.client_file["token"])
    with tempfile.TemporaryDirectory() as folder:
        experiment = Experiment(workspace, "bench-metrics")
        run = experiment.start_logging(snapshot_directory=None, outputs=str(Path(folder, "out")))
        _long_run(run, report)
        _family(experiment, report)
    _rows(stack, report)


def _long_run(run: Run, report: Report) -> None:
    def log() -> None:
        for number in range(POINTS):
            run.log(f"metric {number % 4}", number / 7)
        run.flush()

    report.add("metrics.client_log", timed(log) / POINTS * 1e6, "us/value", "<= 100", True)
    times = []
    for _ in range(ROUNDS):
        found: dict[str, list[float]] = {}
        times.append(timed(lambda: found.update(run.get_metrics())))  # noqa: B023 - called at once
        assert sum(len(values) for values in found.values()) == POINTS
    run.complete()
    best = min(times)
    report.add("metrics.100k_points", best, "s", "<= 0.3", best <= 0.3, **summary(times))


def _family(experiment: Experiment, report: Report) -> None:
    parent = experiment.start_logging(snapshot_directory=None, outputs=False)
    children: list[Run] = []
    while len(children) < CHILDREN:
        children += parent.create_children(count=min(100, CHILDREN - len(children)))
    for child in children:
        for step in range(OF_CHILD):
            child.log("loss", 1 / (step + 1))
        child.flush()
    times = []
    for _ in range(ROUNDS):
        found: dict[str, dict[str, list[float]]] = {}
        times.append(timed(lambda: found.update(parent.get_metrics(recursive=True))))  # noqa: B023
        assert sum(len(each.get("loss", ())) for each in found.values()) == CHILDREN * OF_CHILD
    parent.complete()
    best = min(times)
    report.add("metrics.300_children", best, "s", "<= 1", best <= 1, **summary(times))


def _rows(stack: Stack, report: Report) -> None:
    """The script's own clock; nothing of it may be lost."""
    with stack.http() as http:
        times = []
        for _ in range(ROUNDS):
            run_id = submit(http, run_body(SCRIPT, environment=HERE, target="bench"))
            assert wait_terminal(http, run_id)["status"] == "Completed"
            times.append(float(json.loads(log_text(http, run_id).splitlines()[-1])))
            page = request("GET", http, f"/runs/{run_id}/series").json()
            assert sum(len(each["values"]) for each in page["series"]) == ROWS
        best = min(times)
        report.add("metrics.3000_log_row", best, "s", "<= 0.6", best <= 0.6, **summary(times))
