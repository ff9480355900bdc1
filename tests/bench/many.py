"""Many runs: the rate of no-op runs on two slots, and what a run costs behind a long queue."""

import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx2
import psutil
from measure import Report, cpu_of, summary
from stack import TERMINAL, Stack, request, run_body, submit, wait_terminal

NOOPS = 60
ROUNDS = 9
URGENT = 100
NOOP = run_body("pass\n", target="bench")
ASLEEP = run_body("import time\ntime.sleep(3600)\n", target="bench")


def two_nodes(stack: Stack) -> None:
    """The pool every figure runs on: two nodes that are always there."""
    compute = {
        "name": "bench",
        "max_nodes": 2,
        "min_nodes": 2,
        "idle_seconds_before_scaledown": 3600,
    }
    with stack.http() as http:
        answer = request("POST", http, "/compute", json=compute)
        assert answer.status_code < 300, answer.text


def throughput(stack: Stack, report: Report) -> None:
    """No-op runs on two slots, as the platform starts them where this machine can wall them in."""
    _throughput(stack, report, "noop.rate_of_spawn")


def unwalled(stack: Stack, report: Report) -> None:
    """The same in a stack of its own with the sandbox off: plain processes, as a spawn is one."""
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=stack.home.parent) as folder:
        other = Stack(Path(folder) / "home", STELLWERK_SANDBOX="off")
        other.up()
        try:
            two_nodes(other)
            _throughput(other, report, "noop.rate_of_spawn_unwalled")
        finally:
            other.down()


def _throughput(stack: Stack, report: Report, figure: str) -> None:
    """No-op runs on two slots against spawning ``python -c pass`` two at a time.

    Each round spawns before and after, because other work on the machine comes and goes; the
    ratio of CPU seconds, where such work counts little, stands beside the ratio of rates.
    """
    ratios, costs, parts = [], [], list[dict[str, float]]()
    with stack.http() as http:
        run_many(http, 10, NOOP)
        seconds, spawn_cpu = spawn()
        for _ in range(ROUNDS):
            before, own = _cpu_by_part(stack), time.process_time()
            took = run_many(http, NOOPS, NOOP)
            part = {name: cpu - before[name] for name, cpu in _cpu_by_part(stack).items()}
            part["client"] = time.process_time() - own
            parts.append({name: cpu / NOOPS for name, cpu in part.items()})
            after, after_cpu = spawn()
            ratios.append((seconds + after) / 2 / took)
            costs.append(sum(parts[-1].values()) * NOOPS * 2 / (spawn_cpu + after_cpu))
            seconds, spawn_cpu = after, after_cpu
    value = statistics.median(ratios)
    report.add(
        figure,
        value,
        "ratio",
        ">= 0.3",
        value >= 0.3,
        cpu_over_spawn=summary(costs),
        cpu_ms_by_part={
            name: round(statistics.median(each[name] for each in parts) * 1000, 1)
            for name in parts[0]
        },
        **summary(ratios),
    )


def _cpu_by_part(stack: Stack) -> dict[str, float]:
    """CPU seconds so far: of each process, and of all supervisors and runs."""
    pids = stack.processes()
    executor = psutil.Process(pids["gpu-executor"])
    ended = executor.cpu_times()[2:4]  # fork servers that were begun anew meanwhile
    node = sum(ended) + sum(sum(server.cpu_times()[:4]) for server in executor.children())
    return {name: cpu_of([pid]) for name, pid in pids.items()} | {"supervisor and run": node}


def spawn() -> tuple[float, float]:
    """Wall and CPU seconds of as many spawns as there are runs."""

    def one(_: int) -> None:
        subprocess.run([sys.executable, "-c", "pass"], check=True)

    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(one, range(NOOPS)))
    wall, now = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime


def run_many(http: httpx2.Client, count: int, body: dict[str, Any]) -> float:
    """Seconds from the first submission to the last completion; nobody polls meanwhile."""
    started = time.time()
    with ThreadPoolExecutor(2) as pool:
        ids = list(pool.map(lambda _: submit(http, body), range(count)))
    ended = 0.0
    _terminal_event(http, ids[-1])
    for run_id in reversed(ids):
        view = wait_terminal(http, run_id, 300)
        assert view["status"] == "Completed", view
        ended = max(ended, datetime.fromisoformat(view["ended_at"]).timestamp())
    return ended - started


def _terminal_event(http: httpx2.Client, run_id: str) -> None:
    with http.stream("GET", f"/api/v1/runs/{run_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["status"] in TERMINAL:
                return


def queue(stack: Stack, report: Report) -> None:
    """Cost of a run that passes 1,000 and 10,000 others; both nodes are held in between."""
    seconds, cpu = {}, {}
    pids = list(stack.processes().values())
    with stack.http() as http:
        blockers = [submit(http, ASLEEP) for _ in range(2)]
        _run_state(http, blockers[-1], "Running")
        queued = 0
        for wanted in (1_000, 10_000):
            _fill(http, wanted - queued)
            queued = wanted
            blockers, seconds[wanted], cpu[wanted] = _pass(http, blockers, pids)
        for run_id in blockers:
            request("POST", http, f"/runs/{run_id}/cancel")
    value = cpu[10_000] / cpu[1_000]
    report.add(
        "queue.cost_at_10000_over_1000",
        value,
        "ratio",
        "<= 1.5",
        value <= 1.5,
        platform_cpu_s_per_run=cpu,
        wall_s_per_run=seconds,
        wall_ratio=seconds[10_000] / seconds[1_000],
        runs=URGENT,
    )


def _fill(http: httpx2.Client, count: int) -> None:
    low = run_body("pass\n", target="bench", priority=1)
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda _: submit(http, low), range(count)))
    _run_state(http, ids[-1], "Queued")


def _pass(
    http: httpx2.Client, blockers: list[str], pids: list[int]
) -> tuple[list[str], float, float]:
    """Let urgent runs pass the queue: new blockers, and wall and CPU seconds a run."""
    asleep = {**ASLEEP, "spec": {**ASLEEP["spec"], "priority": 80}}
    following = [submit(http, asleep) for _ in range(2)]
    before, started = cpu_of(pids), time.perf_counter()
    urgent = [submit(http, run_body("pass\n", target="bench", priority=90)) for _ in range(URGENT)]
    for run_id in blockers:
        request("POST", http, f"/runs/{run_id}/cancel")
    for run_id in reversed(urgent):
        wait_terminal(http, run_id, 600)
    seconds = (time.perf_counter() - started) / URGENT
    return following, seconds, (cpu_of(pids) - before) / URGENT


def _run_state(http: httpx2.Client, run_id: str, status: str) -> None:
    while True:
        answer = request("GET", http, f"/runs/{run_id}")
        if answer.status_code == 200 and answer.json()["status"] == status:
            return
        time.sleep(0.2)
