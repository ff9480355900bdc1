"""``make bench``: the platform's figures, each a ratio or difference inside one interleaved run.

Machines are shared and noisy, so nothing here is asserted as a time in a test; every row says its
goal and whether it was met. ``run.py NAME…`` measures only those; rows go to ``bench-results/``.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(Path(__file__).parent)]

from control import backlog, control
from datasets import lazy, outputs, reading
from figures import Figure, main
from image_figures import FIGURES as IMAGES
from keras_run import keras
from latency import environment_reuse, hello, metric_cost
from logging_figures import metrics
from many import queue, throughput, unwalled
from output import logs
from quiet import command_line, rest, run_list
from rates import rates
from sandbox import sandbox
from trials import first_step, memory, sweep

FIGURES: dict[str, Figure] = {
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


if __name__ == "__main__":
    sys.exit(main(FIGURES, sys.argv[1:]))
