"""``make bench``: the platform's figures, each a ratio or difference inside one interleaved run.

Machines are shared and noisy, so nothing here is asserted as a time in a test; every row says its
goal and whether it was met. ``run.py NAME…`` measures only those; rows go to ``bench-results/``.
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from control import backlog, control
from datasets import lazy, outputs, reading
from image_figures import FIGURES as IMAGES
from keras_run import keras
from latency import environment_reuse, hello, metric_cost
from logging_figures import metrics
from many import queue, throughput, two_nodes, unwalled
from measure import Report, SkippedError, timed
from output import logs
from quiet import command_line, rest, run_list
from rates import rates
from sandbox import sandbox
from stack import Stack
from trials import first_step, memory, sweep

FIGURES: dict[str, Callable[[Stack, Report], None]] = {
    "rest": rest,
    "hello": hello,
    "metric_cost": metric_cost,
    "metrics": metrics,
    "environment_reuse": environment_reuse,
    "command_line": command_line,
    "run_list": run_list,
    "throughput": throughput,
    "unwalled": unwalled,
    "logs": logs,
    "rates": rates,
    "sandbox": sandbox,
    "reading": reading,
    "lazy": lazy,
    "outputs": outputs,
    "keras": keras,
    "first_step": first_step,
    "memory": memory,
    "sweep": sweep,
    "queue": queue,
    "control": control,
    "backlog": backlog,
    **IMAGES,
}


def main(names: list[str]) -> int:
    """Measure all figures, or those named; 1 when a name is unknown."""
    if unknown := [name for name in names if name not in FIGURES]:
        print(f"no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 1
    report = Report(ROOT / "bench-results" / f"{time.strftime('%Y%m%d-%H%M%S')}.jsonl")
    skipped = []
    # Not in /tmp: a walled-in run has one of its own, and a home inside it would be made anew there.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT) as folder:
        stack = Stack(Path(folder) / "home")
        up = timed(stack.up)
        try:
            report.add("up.ready", up, "s", "<= 10", up <= 10)
            two_nodes(stack)
            for name in names or list(FIGURES):
                print(f"measuring {name} …", file=sys.stderr, flush=True)
                try:
                    FIGURES[name](stack, report)
                except SkippedError as missing:
                    skipped.append(name)
                    print(f"skipped {name}: {missing}", file=sys.stderr, flush=True)
        finally:
            stack.down()
    missed = [row["figure"] for row in report.rows if not row["met"]]
    print(
        f"{len(report.rows) - len(missed)} of {len(report.rows)} goals met"
        + (f"; missed: {', '.join(missed)}" if missed else "")
        + (f"; not measured: {', '.join(skipped)}" if skipped else "")
    )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
