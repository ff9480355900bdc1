"""A million log lines from one run: none lost, how fast, what it costs the script, how soon seen."""

import statistics
import subprocess
import sys
import time

from measure import Report, summary
from stack import Stack, request, run_body, submit

LINES = 1_000_000
ROUNDS = 3
PRINT = f"""
import os, sys, time
start = time.perf_counter()
for n in range({LINES}):
    print('line', n)
sys.stdout.flush()
wall, cpu = time.perf_counter() - start, sum(os.times()[:2])
"""
KEEP = "\nwith open('outputs/s.txt', 'w') as out:\n    out.write(f'{wall} {cpu}')\n"
TELL = "\nsys.stderr.write(f'{wall} {cpu}')\n"
EVERY_100_MS = """
import time
for n in range(30):
    print(f'{time.time():.6f}')
    time.sleep(0.1)
"""
FOLLOW = "/api/v1/runs/{}/logs/user_logs/std_log.txt?follow=true"


def logs(stack: Stack, report: Report) -> None:
    """Rate, loss and the script's slow-down, each round beside a plain reader of its pipe."""
    expected = "".join(f"line {n}\n" for n in range(LINES)).encode()
    rates, slower, cpu, lost = [], [], [], 0.0
    for _ in range(ROUNDS):
        bare_wall, bare_cpu = _bare()
        seconds, own_wall, own_cpu, received = _through(stack)
        rates.append(LINES / seconds)
        slower.append(own_wall / bare_wall)
        cpu.append(own_cpu / bare_cpu)
        if received != expected:
            lost = max(lost, float(LINES - received.count(b"\n")) or 1.0)
    report.add("logs.lines_lost", lost, "lines", "0, in order", lost == 0, n=ROUNDS)
    rate, ratio = statistics.median(rates), statistics.median(slower)
    report.add("logs.lines_per_s", rate, "lines/s", ">= 100000", rate >= 100_000, **summary(rates))
    report.add(
        "logs.script_slowed",
        ratio,
        "ratio",
        "< 1.5",
        ratio < 1.5,
        script_cpu=summary(cpu),
        **summary(slower),
    )
    visibility(stack, report)


def _bare() -> tuple[float, float]:
    """Wall and CPU seconds of the script with a plain reader on its unbuffered pipe."""
    with subprocess.Popen(
        [sys.executable, "-u", "-c", PRINT + TELL], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as bare:
        assert bare.stdout is not None
        assert bare.stderr is not None
        while bare.stdout.read1(1 << 20):
            pass
        wall, cpu = bare.stderr.read().split()
    return float(wall), float(cpu)


def _through(stack: Stack) -> tuple[float, float, float, bytes]:
    """Seconds from submit to the log's end, the script's own wall and CPU, and the log."""
    with stack.http(timeout=600) as http:
        started = time.perf_counter()
        run_id = submit(http, run_body(PRINT + KEEP, target="bench"))
        received = bytearray()
        with http.stream("GET", FOLLOW.format(run_id)) as answer:
            for chunk in answer.iter_raw():
                received += chunk
        seconds = time.perf_counter() - started
        wall, cpu = request("GET", http, f"/runs/{run_id}/files/outputs/s.txt").text.split()
    return seconds, float(wall), float(cpu), bytes(received)


def visibility(stack: Stack, report: Report) -> None:
    """From print to the client's socket, one line every 100 ms; both clocks are the machine's."""
    delays = []
    with stack.http(timeout=60) as http:
        run_id = submit(http, run_body(EVERY_100_MS, target="bench"))
        with http.stream("GET", FOLLOW.format(run_id)) as answer:
            for chunk in answer.iter_raw():
                now = time.time()
                delays += [now - float(line) for line in chunk.split()]
    value = max(delays) * 1000
    report.add("logs.visible_after", value, "ms", "<= 250", value <= 250, **summary(delays))
