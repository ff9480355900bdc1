"""Whole notebooks of the kinds that v1 users have, each to its last cell."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from stack import Stack

HERE = Path(__file__).parent
WALKS = sorted(path.stem for path in (HERE / "walks").glob("*.py"))
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.mark.parametrize("walk", WALKS)
def test_the_last_cell_works(walk: str, stack: Stack, tmp_path: Path) -> None:
    shutil.copytree(HERE / "walks/scripts", tmp_path / "scripts")
    done = subprocess.run(
        [sys.executable, str(HERE / "cells.py"), str(HERE / "walks" / f"{walk}.py")],
        cwd=tmp_path, env=stack.environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
