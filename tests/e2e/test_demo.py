"""The main job as `make demo` runs it: real Keras on the real MNIST, in a locked environment."""

import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest
from stack import Stack

EXAMPLE = Path(__file__).parents[2] / "training/examples/keras-mnist"
LAST_LINE = re.compile(
    r"demo: Completed run=(?P<run>[0-9a-f]{32}) test_accuracy=(?P<accuracy>0\.9\d{3}) "
    r"model=keras-mnist:(?P<version>\d+) seconds=\d+"
)
AGAIN = """
import submit
workspace = submit.Workspace.from_config()
submit.registered_dataset(workspace)
submit.cluster(workspace)
submit.environment(workspace)
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_data_are_the_published_files() -> None:
    sums = (EXAMPLE / "data/SHA256SUMS").read_text().splitlines()
    assert len(sums) == 4
    for line in sums:
        digest, name = line.split()
        assert hashlib.sha256((EXAMPLE / "data" / name).read_bytes()).hexdigest() == digest


def test_demo_trains_registers_and_predicts(stack: Stack) -> None:
    environment = {
        name: text for name, text in stack.environment.items() if name != "PYTHONDONTWRITEBYTECODE"
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLE / "submit.py")],
        env=environment,
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    last = LAST_LINE.fullmatch(done.stdout.splitlines()[-1])
    assert last, done.stdout[-500:]
    assert float(last["accuracy"]) >= 0.975
    assert done.stdout.count("demo: ") == 1
    for phase in ("preparing", "scaling", "running", "post-processing"):
        assert re.search(rf"^phase {phase}: \d+\.\d s$", done.stdout, re.MULTILINE), phase

    # The second time: dataset, cluster and environment are there, and it says so.
    again = subprocess.run(
        [sys.executable, "-c", AGAIN],
        env=environment,
        cwd=EXAMPLE,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.stdout.count("reused: ") == 3, again.stdout + again.stderr
