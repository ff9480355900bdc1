"""What the platform costs without runs: memory, idle CPU, the command line, the list of runs."""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from measure import ROUNDS, Report, child_cpu, cpu_of, memory_of, summary
from stack import STELLWERK, Stack


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
