"""What `run.py` and `peers.py` share: an embedded stack with two nodes, figures by name, a report."""

import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from many import two_nodes
from measure import Report, SkippedError, timed
from stack import Stack

ROOT = Path(__file__).parent.parent.parent

Figure = Callable[[Stack, Report], None]


def main(figures: Mapping[str, Figure], names: list[str], kind: str = "") -> int:
    """Measure all figures, or those named; 1 when a name is unknown.

    Rows go to a file of `bench-results/`, whose name ends with ``kind``.
    """
    if unknown := [name for name in names if name not in figures]:
        print(f"no figure {', '.join(unknown)}; there are {', '.join(figures)}", file=sys.stderr)
        return 1
    report = Report(ROOT / "bench-results" / f"{time.strftime('%Y%m%d-%H%M%S')}{kind}.jsonl")
    skipped = []
    # Not in /tmp: a walled-in run has one of its own, and a home inside it would be made anew there.
    with tempfile.TemporaryDirectory(prefix=".bench-", dir=ROOT) as folder:
        stack = Stack(Path(folder) / "home")
        up = timed(stack.up)
        try:
            report.add("up.ready", up, "s", "<= 10", up <= 10)
            two_nodes(stack)
            for name in names or list(figures):
                print(f"measuring {name} …", file=sys.stderr, flush=True)
                try:
                    figures[name](stack, report)
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
