"""The command line as a new user walks through it: what it prints, JSON, exit codes, restarts."""

import contextlib
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, log_text, request, wait_terminal

pytestmark = pytest.mark.slow

TRAIN = """
import sys
from stellwerk_agent import Run
run = Run.get_context()
for epoch in range(3):
    run.log("loss", 1 / (epoch + 1))
print("args", sys.argv[1:])
open("outputs/model.bin", "w").write("weights")
"""


def succeeded(stack: Stack, *arguments: str) -> str:
    done = stack.command(*arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def as_json(stack: Stack, *arguments: str) -> Any:
    return json.loads(succeeded(stack, *arguments, "-o", "json"))


def refused(stack: Stack, code: int, *arguments: str) -> str:
    done = stack.command(*arguments)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_a_run_from_submit_to_model(stack: Stack, script_folder: Path, tmp_path: Path) -> None:
    script = script_folder / "train.py"
    script.write_text(TRAIN)
    out = succeeded(stack, "run", "submit", "--tag", "a=1", str(script), "--x", "; rm", "")
    assert "args ['--x', '; rm', '']" in out
    run_id = re.search(r"RunId: (\w+)", out)[1]  # type: ignore[index]
    short = run_id[:12]
    assert short in succeeded(stack, "run", "list")
    assert run_id in [row["run_id"] for row in as_json(stack, "run", "list", "--tag", "a=1")]
    assert as_json(stack, "run", "show", short)["status"] == "Completed"
    assert as_json(stack, "run", "metrics", short) == {"loss": [1.0, 0.5, pytest.approx(1 / 3)]}
    paths = [row["path"] for row in as_json(stack, "run", "files", short)]
    assert {"outputs/model.bin", "user_logs/std_log.txt"} <= set(paths)
    assert "args" in succeeded(stack, "run", "logs", "-f", short)
    succeeded(stack, "run", "download", short, "outputs", "--to", str(tmp_path / "got"))
    assert (tmp_path / "got/outputs/model.bin").read_text() == "weights"
    model = ("model", "register", "walk", "outputs/model.bin", "--run", short)
    assert as_json(stack, *model)["version"] == 1
    assert as_json(stack, "model", "show", "walk")["lineage"]["run_id"] == run_id
    assert "outputs/nope" in refused(stack, 6, "run", "download", short, "outputs/nope")


def test_a_command_and_what_its_output_has_become(stack: Stack, script_folder: Path) -> None:
    (script_folder / "words.sh").write_text('echo "$2" > "$1/words.txt"; python --version\n')
    command = ("--command", "--source", str(script_folder), "sh", "words.sh", "{made}")
    for version, text in ((1, "a b"), (2, "a c")):
        done = stack.command("run", "submit", "--output-data", "made=walk-words", *command, text)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Python 3." in done.stdout
        assert f"output made: dataset walk-words:{version} (1 file, 4 B)" in done.stderr
    failed = stack.command("run", "submit", *command[:3], "sh", "-c", "exit 3")
    assert failed.returncode == 100


def test_exit_codes_are_those_documented(stack: Stack, script_folder: Path) -> None:
    script = script_folder / "three.py"
    script.write_text("raise SystemExit(3)\n")
    done = stack.command("run", "submit", "-o", "json", str(script))
    assert done.returncode == 100
    assert json.loads(done.stdout)["exit"]["exit_code"] == 3
    refused(stack, 2, "run", "submit", "--priority", "101", str(script))
    refused(stack, 2, "up", "--port", "99999")
    refused(stack, 6, "run", "show", "zzzz")
    refused(stack, 6, "run", "submit", "--compute", "no-such", str(script))
    assert "runs already" in refused(stack, 5, "up", "--port", "0")
    script.write_text("import time\ntime.sleep(600)\n")
    run_id = succeeded(stack, "run", "submit", "-d", str(script)).strip()
    succeeded(stack, "run", "cancel", run_id)
    with stack.http() as http:
        assert wait_terminal(http, run_id)["status"] == "Canceled"


def test_datasets_environments_and_clusters(stack: Stack, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.txt").write_text("one")
    assert as_json(stack, "dataset", "register", "walk-data", str(data))["version"] == 1
    (data / "a.txt").write_text("two")
    refused(stack, 5, "dataset", "register", "walk-data", str(data))
    newer = as_json(stack, "dataset", "register", "walk-data", str(data), "--new-version")
    assert newer["version"] == 2
    succeeded(stack, "dataset", "download", "walk-data:1", "--to", str(tmp_path / "old"))
    assert (tmp_path / "old/a.txt").read_text() == "one"
    refused(stack, 5, "dataset", "download", "walk-data:1", "--to", str(tmp_path / "old"))
    assert (
        as_json(stack, "environment", "register", "command-line-env", "--package", "six")["version"]
        == 1
    )
    assert as_json(stack, "environment", "show", "command-line-env")["definition"][
        "pip_packages"
    ] == ["six"]
    assert as_json(stack, "compute", "create", "walk", "--max-nodes", "2")["max_nodes"] == 2
    refused(stack, 5, "compute", "create", "walk", "--max-nodes", "3")
    succeeded(stack, "compute", "delete", "walk")
    refused(stack, 6, "compute", "show", "walk")


def test_status_and_doctor(stack: Stack) -> None:
    status = as_json(stack, "status")
    assert {each["state"] for each in status["processes"]} == {"ready"}
    assert {each["state"] for each in as_json(stack, "doctor")} <= {"ok", "warning"}


def bound(taken: socket.socket) -> int:
    """Bind to the first free port of those that may be the base of a platform."""
    for port in range(20_000, 30_000):
        with contextlib.suppress(OSError):
            taken.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port is free")


def test_a_port_in_use_is_named(stack: Stack, tmp_path: Path) -> None:
    with socket.socket() as taken:
        port = str(bound(taken))
        taken.listen()
        said = refused(stack, 5, "up", "--data", str(tmp_path / "other"), "--port", port)
    assert f"port {port} (gateway) is in use" in said
    assert "--port" in said


def test_a_run_goes_on_while_the_platform_is_down(stack: Stack, script_folder: Path) -> None:
    script = script_folder / "long.py"
    script.write_text(
        "import os, time\n"
        "print('before', flush=True)\n"
        "while not os.path.exists('go-on'):\n"
        "    time.sleep(0.05)\n"
        "print('after', flush=True)\n"
        "open('outputs/done', 'w').write('1')\n"
    )
    run_id = succeeded(stack, "run", "submit", "-d", str(script)).strip()
    with stack.http() as http:
        while b"before" not in log_text(http, run_id):
            assert request("GET", http, f"/runs/{run_id}").json()["status"] != "Failed"
    stack.down()
    (stack.home / f"executor/attempts/{run_id}-1/work/go-on").touch()
    assert "stellwerk up" in refused(stack, 4, "run", "list")
    stack.up()
    with stack.http() as http:
        view = wait_terminal(http, run_id)
        assert (view["status"], view["attempt"]) == ("Completed", 1)
        assert log_text(http, run_id) == b"before\nafter\n"
        assert request("GET", http, f"/runs/{run_id}/files/outputs/done").content == b"1"
