"""How much one run may say: values and lines a second, from the script to what is kept of them.

Both are durable where they are counted: a value is a row of a committed transaction, a line lies
in a synced file whose digest was checked, before the run may be Completed.
"""

import statistics
from datetime import datetime

from measure import Report, summary
from stack import HERE, Stack, log_text, request, run_body, submit, wait_terminal

VALUES = 200_000
LINES = 2_000_000
ROUNDS = 5
BEGAN = "outputs/began.txt"
START = f"""
import time
with open('{BEGAN}', 'w') as out:
    out.write(repr(time.time()))
"""
LOG = (
    START
    + f"""
from azureml.core import Run
run = Run.get_context()
for number in range({VALUES}):
    run.log('loss', number / 7)
"""
)
PRINT = (
    START
    + f"""
import sys
for first in range(0, {LINES}, 1000):
    sys.stdout.write(''.join(f'line {{n}}\\n' for n in range(first, first + 1000)))
"""
)


def rates(stack: Stack, report: Report) -> None:
    """Each the median of five runs; nothing may be lost, and lines keep their order."""
    expected = "".join(f"line {n}\n" for n in range(LINES))
    values, lines, lost = [], [], 0
    with stack.http(timeout=600) as http:
        for _ in range(ROUNDS):
            run_id, seconds = _timed(stack, LOG)
            values.append(VALUES / seconds)
            page = request("GET", http, f"/runs/{run_id}/series").json()
            kept = sum(len(each["values"]) for each in page["series"])
            while page["next"]:
                cursor = {"cursor": page["next"]}
                page = request("GET", http, f"/runs/{run_id}/series", params=cursor).json()
                kept += sum(len(each["values"]) for each in page["series"])
            lost += VALUES - kept
            run_id, seconds = _timed(stack, PRINT)
            lines.append(LINES / seconds)
            lost += log_text(http, run_id) != expected.encode()
    rate = statistics.median(values)
    report.add("rates.values_per_s", rate, "1/s", ">= 40000", rate >= 40_000, **summary(values))
    rate = statistics.median(lines)
    report.add("rates.lines_per_s", rate, "1/s", ">= 500000", rate >= 500_000, **summary(lines))
    report.add("rates.lost", lost, "values, logs", "0", lost == 0, n=2 * ROUNDS)


def _timed(stack: Stack, script: str) -> tuple[str, float]:
    """A run, and the seconds from its script's first statement to its end."""
    with stack.http(timeout=600) as http:
        run_id = submit(http, run_body(script, environment=HERE, target="bench"))
        view = wait_terminal(http, run_id, 300)
        assert view["status"] == "Completed", view
        began = float(request("GET", http, f"/runs/{run_id}/files/{BEGAN}").text)
    return run_id, datetime.fromisoformat(view["ended_at"]).timestamp() - began
