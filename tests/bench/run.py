"""``make bench``: the platform's figures, each a ratio or difference inside one interleaved run.

Machines are shared and noisy, so nothing here is asserted as a time in a test; every row says its
goal and whether it was met. ``run.py NAME…`` measures only those; rows go to ``bench-results/``.
"""

import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from measure import Report, child_cpu, cpu_of, memory_of, summary, timed
from stack import STELLWERK, Stack, request, run_body, submit, wait_terminal

ROUNDS = 11
HELLO = "print('hello')\n"


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
            if line.startswith("data:") and any(
                f'"{s}"' in line for s in ("Completed", "Failed", "Canceled")
            ):
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
        compute = {
            "name": "bench",
            "max_nodes": 2,
            "min_nodes": 2,
            "idle_seconds_before_scaledown": 3600,
        }
        request("POST", http, "/compute", json=compute)
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


def throughput(stack: Stack, report: Report) -> None:
    """No-op runs on two slots against spawning ``python -c pass`` two at a time; queue growth."""
    with stack.http() as http:
        compute = {
            "name": "bench",
            "max_nodes": 2,
            "min_nodes": 2,
            "idle_seconds_before_scaledown": 3600,
        }
        request("POST", http, "/compute", json=compute)
        ratios, per_run = [], {}
        count = 60
        for _ in range(3):
            spawn = count / timed(lambda: _spawn(count))
            rate = count / _run_many(http, count)
            ratios.append(rate / spawn)
        value = statistics.median(ratios)
        report.add("noop.rate_of_spawn", value, "ratio", ">= 0.3", value >= 0.3, **summary(ratios))
        for queued in (1_000, 10_000):
            per_run[queued] = _drain(http, queued)
        value = per_run[10_000] / per_run[1_000]
        report.add(
            "queue.cost_at_10000_over_1000",
            value,
            "ratio",
            "<= 1.5",
            value <= 1.5,
            seconds_per_run=per_run,
        )


def _spawn(count: int) -> None:
    with ThreadPoolExecutor(2) as pool:
        list(
            pool.map(
                lambda _: subprocess.run([sys.executable, "-c", "pass"], check=True), range(count)
            )
        )


def _run_many(http: httpx2.Client, count: int) -> float:
    started = time.perf_counter()
    ids = [submit(http, run_body("pass\n", target="bench")) for _ in range(count)]
    for run_id in ids:
        view = wait_terminal(http, run_id, 300)
        assert view["status"] == "Completed", view
    return time.perf_counter() - started


def _drain(http: httpx2.Client, queued: int) -> float:
    """Seconds per run while ``queued`` others wait: 150 runs of higher priority pass a full queue."""
    blocked = run_body("pass\n", target="bench", priority=1, experiment=f"queue-{queued}")
    blockers = [
        submit(http, run_body("import time\ntime.sleep(3600)\n", target="bench", priority=100))
        for _ in range(2)
    ]
    with ThreadPoolExecutor(4) as pool:
        waiting = list(pool.map(lambda _: submit(http, blocked), range(queued)))
    _wait_queued(http, waiting[-1])
    urgent = [submit(http, run_body("pass\n", target="bench", priority=90)) for _ in range(150)]
    _wait_queued(http, urgent[-1])
    started = time.perf_counter()
    for run_id in blockers:
        request("POST", http, f"/runs/{run_id}/cancel")
    for run_id in urgent:
        wait_terminal(http, run_id, 600)
    seconds = (time.perf_counter() - started) / len(urgent)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda run_id: request("POST", http, f"/runs/{run_id}/cancel"), waiting))
    wait_terminal(http, waiting[-1], 600)
    return seconds


def _wait_queued(http: httpx2.Client, run_id: str) -> None:
    while True:
        answer = request("GET", http, f"/runs/{run_id}")
        if answer.status_code == 200 and answer.json()["status"] == "Queued":
            return
        time.sleep(0.2)


def logs(stack: Stack, report: Report) -> None:
    """A million lines from one run: none lost, in order; the script's slow-down; visibility."""
    script = "import time\nstart = time.perf_counter()\nfor n in range(1_000_000):\n    print('line', n)\nimport sys\nsys.stdout.flush()\nopen('outputs/s.txt', 'w').write(str(time.perf_counter() - start))\n"
    alone = "import time,sys\nstart = time.perf_counter()\nfor n in range(1_000_000):\n    print('line', n)\nsys.stdout.flush()\nsys.stderr.write(str(time.perf_counter() - start))\n"
    bare = subprocess.Popen(
        [sys.executable, "-u", "-c", alone], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert bare.stdout is not None
    while bare.stdout.read1(1 << 20):
        pass
    assert bare.stderr is not None
    bare_s = float(bare.stderr.read())
    with stack.http(timeout=600) as http:
        started = time.perf_counter()
        run_id = submit(http, run_body(script, target="bench"))
        received = bytearray()
        with http.stream(
            "GET", f"/api/v1/runs/{run_id}/logs/user_logs/std_log.txt?follow=true"
        ) as answer:
            for chunk in answer.iter_raw():
                received += chunk
        seconds = time.perf_counter() - started
        own = float(request("GET", http, f"/runs/{run_id}/files/outputs/s.txt").content)
    expected = "".join(f"line {n}\n" for n in range(1_000_000)).encode()
    report.add(
        "logs.lines_lost",
        float(received.count(b"\n") - 1_000_000),
        "lines",
        "0, in order",
        bytes(received) == expected,
    )
    report.add("logs.lines_per_s", 1_000_000 / seconds, "lines/s", ">= 100000", seconds <= 10)
    report.add(
        "logs.script_slowed", own / bare_s, "ratio", "< 1.5", own / bare_s < 1.5, bare_s=bare_s
    )
    visibility(stack, report)


def visibility(stack: Stack, report: Report) -> None:
    """From print to the client's socket, one line every 100 ms; both clocks are the machine's."""
    script = (
        "import time\nfor n in range(30):\n    print(f'{time.time():.6f}')\n    time.sleep(0.1)\n"
    )
    delays = []
    with stack.http(timeout=60) as http:
        run_id = submit(http, run_body(script, target="bench"))
        with http.stream(
            "GET", f"/api/v1/runs/{run_id}/logs/user_logs/std_log.txt?follow=true"
        ) as answer:
            for chunk in answer.iter_raw():
                now = time.time()
                delays += [now - float(line) for line in chunk.split()]
    value = max(delays) * 1000
    report.add("logs.visible_after", value, "ms", "<= 250", value <= 250, **summary(delays))


def metric_cost(stack: Stack, report: Report) -> None:
    """What ``run.log`` costs the script."""
    script = "import time\nfrom stellwerk_agent import Run\nrun = Run.get_context()\nrun.log('warm', 1)\nstart = time.perf_counter()\nfor n in range(20000):\n    run.log('loss', 0.5 + n)\nopen('outputs/s.txt', 'w').write(str((time.perf_counter() - start) / 20000))\n"
    with stack.http(timeout=120) as http:
        run_id = submit(http, run_body(script, target="bench"))
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


def rest(stack: Stack, report: Report) -> None:
    """Memory and CPU of all processes when nothing happens."""
    pids = list(stack.processes().values())
    time.sleep(5)  # let what earlier measurements left settle
    before = cpu_of(pids)
    started = time.perf_counter()
    time.sleep(20)
    share = (cpu_of(pids) - before) / (time.perf_counter() - started) * 100
    report.add("rest.cpu_of_one_core", share, "%", "<= 3", share <= 3)
    megabytes = memory_of(pids) / 1e6
    report.add("rest.memory", megabytes, "MB", "<= 900", megabytes <= 900, processes=len(pids))


def command_line(stack: Stack, report: Report) -> None:
    """CPU of ``stellwerk --help``."""
    values = [child_cpu([STELLWERK, "--help"])[1] for _ in range(ROUNDS)]
    value = statistics.median(values)
    report.add("cli.help_cpu", value, "s", "<= 0.15", value <= 0.15, **summary(values))


def run_list(stack: Stack, report: Report) -> None:
    """First page of runs at 50,000 against 1,000, in the history service's own store."""
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "run_list.py")],
        capture_output=True,
        text=True,
        check=True,
    )
    ratio = float(done.stdout.split()[-1])
    report.add("runs.first_page_50000_over_1000", ratio, "ratio", "<= 1.5", ratio <= 1.5)


FIGURES: dict[str, Callable[[Stack, Report], None]] = {
    "rest": rest,
    "hello": hello,
    "metric_cost": metric_cost,
    "environment_reuse": environment_reuse,
    "command_line": command_line,
    "logs": logs,
    "run_list": run_list,
    "throughput": throughput,
}


def main(names: list[str]) -> int:
    """Measure all figures, or those named."""
    report = Report(ROOT / "bench-results" / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl")
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder) / "home")
        up = timed(stack.up)
        try:
            report.add("up.ready", up, "s", "<= 10", up <= 10)
            for name in names or list(FIGURES):
                print(f"measuring {name} …", file=sys.stderr, flush=True)
                FIGURES[name](stack, report)
        finally:
            stack.down()
    missed = [row["figure"] for row in report.rows if not row["met"]]
    print(
        f"{len(report.rows) - len(missed)} of {len(report.rows)} goals met"
        + (f"; missed: {', '.join(missed)}" if missed else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
