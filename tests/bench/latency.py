"""How long one run takes beside its bare script, and what the platform costs it."""

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import httpx2
from measure import ROUNDS, Report, summary, timed
from stack import TERMINAL, Stack, request, run_body, submit, wait_terminal

HELLO = "print('hello')\n"
METRICS = """
import time
from stellwerk_agent import Run

run = Run.get_context()
run.log("warm", 1)
start = time.perf_counter()
for n in range(20_000):
    run.log("loss", 0.5 + n)
with open("outputs/s.txt", "w") as out:
    out.write(str((time.perf_counter() - start) / 20_000))
"""


def follow(http: httpx2.Client, run_id: str) -> tuple[float, float]:
    """Times of the first log byte and of the terminal event, on the monotonic clock."""
    first = [0.0]

    def read_log() -> None:
        with http.stream(
            "GET", f"/api/v1/runs/{run_id}/logs/user_logs/std_log.txt?follow=true"
        ) as answer:
            for chunk in answer.iter_raw():
                if chunk and not first[0]:
                    first[0] = time.perf_counter()

    reader = threading.Thread(target=read_log)
    reader.start()
    with http.stream("GET", f"/api/v1/runs/{run_id}/events") as answer:
        for line in answer.iter_lines():
            if line.startswith("data:") and json.loads(line[5:])["status"] in TERMINAL:
                done = time.perf_counter()
                break
    reader.join()
    return first[0], done


def hello(stack: Stack, report: Report) -> None:
    """Submit → first line and → completed, over the bare script."""
    lines, ends, bare = [], [], []
    with stack.http() as http, tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "hello.py")
        script.write_text(HELLO)
        for number in range(ROUNDS + 2):
            alone = timed(
                lambda: subprocess.run(
                    [sys.executable, str(script)], check=True, stdout=subprocess.DEVNULL
                )
            )
            started = time.perf_counter()
            first, done = follow(http, submit(http, run_body(HELLO, target="bench")))
            if number >= 2:  # two rounds warm the caches of both sides
                bare.append(alone)
                lines.append(first - started - alone)
                ends.append(done - started - alone)
    value = statistics.median(lines) * 1000
    report.add(
        "hello.first_line_over_bare",
        value,
        "ms",
        "<= 150",
        value <= 150,
        bare=summary(bare),
        **summary(lines),
    )
    value = statistics.median(ends) * 1000
    report.add("hello.completed_over_bare", value, "ms", "<= 300", value <= 300, **summary(ends))


def metric_cost(stack: Stack, report: Report) -> None:
    """What ``run.log`` costs the script."""
    with stack.http(timeout=120) as http:
        run_id = submit(http, run_body(METRICS, target="bench"))
        view = wait_terminal(http, run_id, 120)
        assert view["status"] == "Completed", view
        value = float(request("GET", http, f"/runs/{run_id}/files/outputs/s.txt").content) * 1e6
    report.add("metrics.log_cost", value, "us", "<= 20", value <= 20)


def environment_reuse(stack: Stack, report: Report) -> None:
    """RunPreparing → ImageReady for an environment that is there."""
    times = []
    with stack.http() as http:
        spec = {"pip_packages": ["six"]}
        first = submit(http, run_body("import six\n", target="bench") | {"experiment": "env"})
        wait_terminal(http, first)
        for _ in range(ROUNDS):
            body = run_body("import six\n", target="bench")
            body["spec"]["environment"] = spec
            run_id = submit(http, body)
            view = wait_terminal(http, run_id, 300)
            assert view["status"] == "Completed", view
            times.append(view["phases"]["preparing"])
    value = statistics.median(times[1:]) * 1000
    report.add(
        "environment.second_use",
        value,
        "ms",
        "<= 50",
        value <= 50,
        first_s=times[0],
        **summary(times[1:]),
    )
