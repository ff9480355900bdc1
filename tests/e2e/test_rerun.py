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
pathlib.Path("outputs/result.txt").write_text(text)
print("pid", os.getpid())
"""
DICE = """
import os
open("outputs/dice.bin", "wb").write(os.urandom(16))
"""


def submitted(stack: Stack, *arguments: str) -> str:
    done = stack.command("run", "submit", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return re.search(r"RunId: (\w+)", done.stdout)[1]  # type: ignore[index]


def test_a_rerun_is_on_what_the_run_had_and_matches(
    stack: Stack, script_folder: Path, tmp_path: Path
) -> None:
    script, data = script_folder / "train.py", tmp_path / "data"
    script.write_text(TRAIN)
    data.mkdir()
    (data / "a").write_text("version one")
    register = ("dataset", "register", "again", str(data))
    assert stack.command(*register).returncode == 0
    run = submitted(stack, "--input", "d=again", str(script), "{d}")
    (data / "a").write_text("version two is longer")
    assert stack.command(*register, "--new-version").returncode == 0
    script.write_text("raise SystemExit('another script')\n")

    same = stack.command("run", "rerun", run[:12], "--verify")
    assert same.returncode == 0, same.stdout + same.stderr
    assert same.stdout.splitlines()[-1] == "match: 1 file and 1 metric are the same"
    again = re.search(r"RunId: (\w+)", same.stdout)[1]  # type: ignore[index]
    with stack.http() as http:
        first, view = (http.get(f"/api/v1/runs/{each}").json() for each in (run, again))
    assert view["properties"]["stellwerk.rerun_of"] == run
    assert view["inputs"]["d"]["dataset_id"] == first["inputs"]["d"]["dataset_id"]
    assert view["image"] == first["image"]


def test_what_differs_is_named(stack: Stack, script_folder: Path) -> None:
    (script_folder / "dice.py").write_text(DICE)
    run = submitted(stack, str(script_folder / "dice.py"))
    other = stack.command("run", "rerun", run, "--verify", "-o", "json")
    assert other.returncode == 104, other.stdout + other.stderr
    found = json.loads(other.stdout)
    assert (found["match"], found["run_id"]) == (False, run)
    [difference] = found["differences"]
    assert (difference["kind"], difference["name"]) == ("file", "outputs/dice.bin")


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


def test_prune_keeps_what_was_just_used_and_refuses_nonsense(
    stack: Stack, script_folder: Path
) -> None:
    (script_folder / "quick.py").write_text("print('x')\n")
    submitted(stack, str(script_folder / "quick.py"))
    done = stack.command("environment", "prune", "--max-size", "0", "-o", "json")
    assert done.returncode == 0, done.stderr
    view = json.loads(done.stdout)
    assert (view["removed"], view["kept"] >= 1) == ([], True)
    said = stack.command("environment", "prune", "--older-than", "30d", "--dry-run")
    assert said.stdout.startswith("0 would go (0 B), ")
    for wrong in (("--older-than", "30x"), ("--max-size", "much"), ()):
        assert stack.command("environment", "prune", *wrong).returncode == 2
    with stack.http() as http:
        answer = http.post("/api/v1/environments/prune", json={})
    assert answer.status_code == 422
    assert "older_than_s" in answer.json()["detail"]
