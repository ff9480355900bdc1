"""A run done again on exactly what it had, as a user does it: match, or what differs."""

import json
import re
from pathlib import Path

import pytest
from stack import Stack

pytestmark = pytest.mark.slow

TRAIN = """
import os, pathlib, sys
from stellwerk_agent import Run
run = Run.get_context()
data = pathlib.Path(sys.argv[1])
text = "".join(sorted(path.read_text() for path in ([data] if data.is_file() else data.iterdir())))
run.log("length", len(text))
outside = pathlib.Path(sys.argv[2])
pathlib.Path("outputs/result.txt").write_text(text + outside.read_text())
print("pid", os.getpid())
"""


def submitted(stack: Stack, *arguments: str) -> str:
    done = stack.command("run", "submit", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"RunId: (\w+)", done.stdout)[1]  # type: ignore[index]


def test_a_rerun_matches_until_something_from_outside_changes(
    stack: Stack, script_folder: Path, tmp_path: Path
) -> None:
    (script_folder / "train.py").write_text(TRAIN)
    outside, data = tmp_path / "outside", tmp_path / "data"
    outside.write_text("one")
    data.mkdir()
    (data / "a").write_text("version one")
    register = ("dataset", "register", "again", str(data))
    assert stack.command(*register).returncode == 0
    run = submitted(
        stack, "--input", "d=again", str(script_folder / "train.py"), "{d}", str(outside)
    )
    (data / "a").write_text("version two is longer")
    assert stack.command(*register, "--new-version").returncode == 0

    same = stack.command("run", "rerun", run[:12], "--verify")
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.splitlines()[-1] == "match: 1 file and 1 metric are the same"

    outside.write_text("two")
    other = stack.command("run", "rerun", run, "--verify", "-o", "json")
    assert other.returncode == 104, other.stdout + other.stderr
    found = json.loads(other.stdout)
    assert (found["match"], found["run_id"]) == (False, run)
    [difference] = found["differences"]
    assert (difference["kind"], difference["name"]) == ("file", "outputs/result.txt")
    with stack.http() as http:
        first, view = (http.get(f"/api/v1/runs/{each}").json() for each in (run, found["rerun_id"]))
    assert view["properties"]["stellwerk.rerun_of"] == run
    assert view["inputs"]["d"]["dataset_id"] == first["inputs"]["d"]["dataset_id"]


def test_what_cannot_be_repeated_is_refused(stack: Stack, script_folder: Path) -> None:
    script = script_folder / "three.py"
    script.write_text("raise SystemExit(3)\n")
    done = stack.command("run", "submit", "-d", str(script))
    run = done.stdout.strip()
    stack.command("run", "logs", "-f", run)
    refused = stack.command("run", "rerun", run, "--verify")
    assert refused.returncode == 5
    assert "only a completed run can be verified" in refused.stderr
    again = stack.command("run", "rerun", run)
    assert again.returncode == 100
    assert stack.command("run", "rerun", run, "--verify", "-d").returncode == 2
    assert stack.command("run", "rerun", "zzzz").returncode == 6
