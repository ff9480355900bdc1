"""Warm starts through the whole platform: chosen, told, adopted, refused in words."""

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx2
import psutil
import pytest
from stack import HERE, Stack, log_text, request, run_body, submit, wait_terminal

pytestmark = pytest.mark.servers
SLOW_LINES = """
import time
for n in range(40):
    print(n, flush=True)
    time.sleep(0.1)
open('outputs/done.txt', 'w').write('all')
"""


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    ahead = json.dumps(["minimal", "no-such-environment"])
    made = Stack(tmp_path_factory.mktemp("warm"), STELLWERK_WARM_ENVIRONMENTS=ahead)
    made.up()
    yield made
    made.down()


def ended(http: httpx2.Client, script: str, **spec: object) -> dict[str, object]:
    return wait_terminal(http, submit(http, run_body(script, **spec)), 120)


def test_required_warm_and_told(stack: Stack) -> None:
    with stack.http() as http:
        view = ended(http, "import sys; print('here'); sys.exit(3)", warm="require")
        assert view["start"], view["error"]
        assert view["start"]["warm"] is True
        assert view["start"]["cold_reason"] is None
        assert (view["status"], view["exit"]["exit_code"]) == ("Failed", 3)
        assert log_text(http, view["run_id"]) == b"here\n"
        # A file that has the name of a loaded module keeps a run cold, and it says so.
        body = run_body("print('here')")
        body["spec"]["source"]["inline"]["socket.py"] = "x = 1\n"
        view = wait_terminal(http, submit(http, body), 120)
        assert view["start"]["warm"] is False
        assert "socket.py beside the script" in view["start"]["cold_reason"]
        done = stack.command("run", "timeline", view["run_id"][:12], "-o", "json")
        steps = {step["name"].strip(): step for step in json.loads(done.stdout)}
        assert {"environment", "queue", "start", "process", "run", "post-processing"} <= set(steps)
        assert steps["process"]["detail"] == f"cold: {view['start']['cold_reason']}"


def test_imports_and_first_step_in_rest_stream_and_command_line(stack: Stack) -> None:
    with stack.http() as http:
        body = run_body(
            "import keras; from keras.src.callbacks import CallbackList as C; C().on_train_batch_end(0)"
        )
        body["spec"]["source"]["inline"] |= {
            "keras/__init__.py": "import time; time.sleep(0.2); from keras.src import callbacks",
            "keras/src/__init__.py": "",
            "keras/src/callbacks.py": "class CallbackList:\n def on_train_batch_end(self, n): ...",
        }
        view = wait_terminal(http, submit(http, body), 120)
        assert view["status"] == "Completed", view
        took = view["start"]["timings_s"]
        assert set(took) == {"prepare", "code", "launch", "imports", "first_step"}
        assert 0.2 <= took["imports"] < 20
        assert 0 <= took["first_step"] < 20
        stream = request("GET", http, f"/runs/{view['run_id']}/events").text
        lines = [text[5:] for text in stream.splitlines() if text.startswith("data:")]
        entry = json.loads([line for line in lines if "AttemptProgressed" in line][-1])
        reached = {name: took[name] for name in ("imports", "first_step")}
        assert entry["data"]["timings_s"] == reached
        done = stack.command("run", "timeline", view["run_id"][:12])
        assert "imports" in done.stdout
        assert "first training step" in done.stdout


def test_the_second_run_in_an_environment_of_the_users_own_is_warm(stack: Stack) -> None:
    own = {"EARLY": "1", "PYTHONDEVMODE": ""}  # a variable of its own: no other test's process
    script = "import sys; print('numpy' in sys.modules)"
    with stack.http() as http:
        first = ended(http, script, environment_variables=own)
        assert "no warm process yet" in first["start"]["cold_reason"]
        view: dict[str, Any] = first
        while view["start"]["cold_reason"] is not None:
            view = ended(http, script, environment_variables=own)
            assert view["start"]["cold_reason"] in {None, "its warm process is still loading"}
        assert log_text(http, view["run_id"]) == b"False\n", "no framework unless required"


def test_more_runs_that_require_it_than_there_may_be_processes(stack: Stack) -> None:
    """Five at once on a node for two processes, each with a process of its own: they take turns."""
    with stack.http() as http:
        wide = {"name": "wide", "max_nodes": 1, "slots_per_node": 5}
        assert request("POST", http, "/compute", json=wide).status_code < 300
        spec = {"warm": "require", "target": "wide"}
        asked = [
            submit(http, run_body("pass", **spec, environment_variables={"KERAS_HOME": name}))
            for name in "abcde"
        ]
        views = [wait_terminal(http, run_id, 300) for run_id in asked]
    assert [(view["status"], view["start"]["warm"]) for view in views] == [("Completed", True)] * 5


def test_required_and_impossible(stack: Stack) -> None:
    with stack.http() as http:
        body = run_body("print(1)", warm="require")
        body["spec"]["source"]["inline"]["socket.py"] = "x = 1\n"
        view = wait_terminal(http, submit(http, body), 60)
        assert view["status"] == "Failed"
        said = view["error"]["message"]
        assert "warm='require' was asked for" in said
        assert "socket.py beside the script" in said
        assert "ask for warm='auto'" in said
        answer = request("POST", http, "/runs", json=run_body("pass", warm="always"))
        assert answer.status_code in {400, 422}
        assert "warm" in answer.text


def test_a_warm_run_outlives_its_executor_and_its_fork_server(stack: Stack) -> None:
    with stack.http() as http:
        run_id = submit(http, run_body(SLOW_LINES, warm="require"))
        with http.stream(
            "GET", f"/api/v1/runs/{run_id}/logs/user_logs/std_log.txt?follow=true"
        ) as log:
            next(log.iter_raw())
            stack.kill("gpu-executor")  # its fork servers end with it
        view = wait_terminal(http, run_id, 120)
        assert (view["status"], view["attempt"], view["start"]["warm"]) == ("Completed", 1, True)
        assert log_text(http, run_id) == b"".join(b"%d\n" % n for n in range(40))
        assert request("GET", http, f"/runs/{run_id}/files/outputs/done.txt").text == "all"


def test_environment_warm_from_the_command_line(stack: Stack) -> None:
    with stack.http() as http:
        body = {"name": "here", "definition": HERE}
        answer = request("POST", http, "/environments", json=body)
        assert answer.status_code < 300, answer.text
    done = stack.command("environment", "warm", "here")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("here is warm on local-")


def test_an_environment_that_is_loaded_when_the_node_starts(stack: Stack) -> None:
    with stack.http() as http:

        def loaded() -> bool:
            view = request("GET", http, "/environments/minimal").json()
            python = str(stack.home / "environments" / view["env_id"] / "bin" / "python")
            running = psutil.process_iter(["cmdline"])  # behind walls it is no child of the node
            return any((each.info["cmdline"] or [])[:1] == [python] for each in running)

        end = time.monotonic() + 120
        while not loaded():
            assert time.monotonic() < end, stack.logs()
            time.sleep(0.1)
        body = run_body("import pydantic; print('ran')")
        body["spec"]["environment"] = {"name": "minimal"}
        view = wait_terminal(http, submit(http, body), 120)
        assert view["status"] == "Completed", view["error"]
        assert view["start"]["cold_reason"] in {None, "its warm process is still loading"}
        if view["start"]["cold_reason"] is not None:
            view = wait_terminal(http, submit(http, body), 120)
        assert view["start"]["warm"] is True
    done = stack.command("environment", "warm", "minimal")
    assert done.stdout.startswith("minimal is warm on local-"), done.stderr
