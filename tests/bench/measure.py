"""Small tools of the bench: interleaved rounds, medians, JSON lines, CPU of process trees."""

import json
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROUNDS = 11
"""Rounds of a figure whose rounds are cheap."""


class SkippedError(Exception):
    """A figure cannot be measured here; the text says what is missing."""


@dataclass
class Report:
    """Collects figures; each is one JSON line with its goal."""

    path: Path
    rows: list[dict[str, Any]] = field(default_factory=list)

    def add(self, name: str, value: float, unit: str, goal: str, met: bool, **more: Any) -> None:
        """Print and store one figure."""
        row = {
            "figure": name,
            "value": round(value, 4),
            "unit": unit,
            "goal": goal,
            "met": met,
            **more,
        }
        self.rows.append(row)
        print(json.dumps(row), flush=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as out:
            out.write(json.dumps(row) + "\n")


def timed(work: Callable[[], Any]) -> float:
    """Wall seconds of a call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def child_cpu(command: list[str], **options: Any) -> tuple[float, float]:
    """Wall and CPU seconds of a child process, CPU from its own accounting."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(command, check=True, **{**quiet, **options})
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def cpu_of(pids: list[int]) -> float:
    """CPU seconds used so far by these processes."""
    total = 0.0
    for pid in pids:
        try:
            times = psutil.Process(pid).cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


def memory_of(pids: list[int]) -> int:
    """Sum of the proportional set sizes, in bytes."""
    total = 0
    for pid in pids:
        try:
            total += psutil.Process(pid).memory_full_info().pss
        except psutil.NoSuchProcess:
            continue
    return total


def summary(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest, with the count."""
    return {
        "median": round(statistics.median(values), 5),
        "min": round(min(values), 5),
        "max": round(max(values), 5),
        "n": len(values),
    }
