"""How runs end: exits, signals, floods, hostile outputs, cancel, priorities, retries."""

import hashlib
import time

import pytest
from stack import Stack, log_text, request, run_body, submit, wait_terminal

pytestmark = pytest.mark.slow


def ended(stack: Stack, script: str, **spec: object) -> tuple[dict, bytes]:
    with stack.http() as http:
        run_id = submit(http, run_body(script, **spec))
        view = wait_terminal(http, run_id, 90)
        return view, log_text(http, run_id)


def test_success_keeps_log_metrics_and_outputs(stack: Stack) -> None:
    view, log = ended(
        stack,
        "from stellwerk_agent import Run\nRun.get_context().log('a', 1)\nprint('x')\nopen('outputs/o.txt','w').write('out')\n",
    )
    assert view["status"] == "Completed"
    assert log == b"x\n"
    assert set(view["phases"]) >= {"preparing", "running", "post_processing"}
    with stack.http() as http:
        assert request("GET", http, f"/runs/{view['run_id']}/files/outputs/o.txt").content == b"out"
        logs = request("GET", http, f"/runs/{view['run_id']}/logs").json()["logs"]
        std = next(item for item in logs if item["path"] == "user_logs/std_log.txt")
        assert (std["bytes"], std["closed"], std["sha256"]) == (
            2,
            True,
            hashlib.sha256(b"x\n").hexdigest(),
        )


def test_exit_status_is_kept_and_fails_the_run(stack: Stack) -> None:
    view, log = ended(stack, "print('before')\nraise SystemExit(3)\n")
    assert (view["status"], view["exit"]["exit_code"]) == ("Failed", 3)
    assert "3" in view["error"]["message"]
    assert log == b"before\n"


def test_killed_process_is_told_apart(stack: Stack) -> None:
    view, _ = ended(stack, "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    assert (view["status"], view["exit"]["signal"]) == ("Failed", 9)


def test_ten_megabytes_without_a_newline_and_invalid_utf8(stack: Stack) -> None:
    view, log = ended(stack, "import sys\nsys.stdout.buffer.write(b'\\xff\\xfe' * 5_000_000)\n")
    assert view["status"] == "Completed"
    assert log == b"\xff\xfe" * 5_000_000


def test_a_script_that_writes_nothing(stack: Stack) -> None:
    view, log = ended(stack, "pass\n")
    assert (view["status"], log) == ("Completed", b"")


def test_five_thousand_files(stack: Stack) -> None:
    view, _ = ended(
        stack, "for n in range(5000):\n    open(f'outputs/{n:05d}.txt', 'w').write(str(n))\n"
    )
    assert view["status"] == "Completed"
    with stack.http() as http:
        names, cursor = [], None
        page = request("GET", http, f"/runs/{view['run_id']}/files").json()
        names = [item["path"] for item in page["files"] if item["path"].startswith("outputs/")]
        assert cursor is None
        assert len(names) == 5000


def test_links_out_of_the_run_are_not_followed(stack: Stack) -> None:
    view, _ = ended(
        stack,
        "import os\nos.symlink('/etc/passwd', 'outputs/p')\nos.mkfifo('outputs/f')\nopen('outputs/ok', 'w').write('1')\n",
    )
    assert view["status"] == "Completed"
    with stack.http() as http:
        names = [
            item["path"]
            for item in request("GET", http, f"/runs/{view['run_id']}/files").json()["files"]
        ]
        assert "outputs/ok" in names
        assert not {"outputs/p", "outputs/f"} & set(names)


def test_arguments_are_passed_as_they_are(stack: Stack) -> None:
    hostile = ["; rm -rf /", "$(id)", "`id`", "--help", "-", "", "ü\n", 50, 0.001, True]
    view, log = ended(
        stack, "import sys, json\nprint(json.dumps(sys.argv[1:]))\n", arguments=hostile
    )
    assert view["status"] == "Completed"
    assert __import__("json").loads(log) == [str(item) for item in hostile]


def test_cancel_while_running_ends_it_and_keeps_the_log(stack: Stack) -> None:
    with stack.http() as http:
        run_id = submit(
            http, run_body("import time\nprint('up', flush=True)\ntime.sleep(600)\n", grace_s=2)
        )
        end = time.monotonic() + 60
        while b"up" not in log_text(http, run_id):
            assert time.monotonic() < end
        assert request("POST", http, f"/runs/{run_id}/cancel").status_code == 202
        view = wait_terminal(http, run_id, 60)
        assert view["status"] == "Canceled"
        assert log_text(http, run_id) == b"up\n"
        again = request("POST", http, f"/runs/{run_id}/cancel")
        assert (again.status_code, again.json()["code"]) == (409, "run.already_terminal")


def test_queue_explains_itself_and_obeys_priority(stack: Stack) -> None:
    with stack.http() as http:
        compute = {"name": "one-node", "max_nodes": 1, "idle_seconds_before_scaledown": 60}
        assert request("POST", http, "/compute", json=compute).status_code < 300
        blocker = submit(
            http, run_body("import time\ntime.sleep(600)\n", target="one-node", grace_s=1)
        )
        end = time.monotonic() + 60
        while request("GET", http, f"/runs/{blocker}").json().get("status") != "Running":
            assert time.monotonic() < end  # the urgent run would pass it while its node comes up
            time.sleep(0.05)
        low = submit(http, run_body("print(1)\n", target="one-node", priority=10))
        high = submit(http, run_body("print(1)\n", target="one-node", priority=90))
        end = time.monotonic() + 60
        while True:
            views = [request("GET", http, f"/runs/{run}").json() for run in (high, low)]
            if all(view.get("queue") and view["status"] == "Queued" for view in views):
                break
            assert time.monotonic() < end, views
            time.sleep(0.05)
        assert [view["queue"]["position"] for view in views] == [1, 2]
        assert all(view["queue"]["reason"] and view["queue"]["unblock"] for view in views)
        request("POST", http, f"/runs/{blocker}/cancel")
        ends = [wait_terminal(http, run, 60) for run in (high, low)]
        assert ends[0]["started_at"] < ends[1]["started_at"]
        assert request("DELETE", http, "/compute/one-node").status_code < 300


def test_failed_script_is_retried_when_asked(stack: Stack) -> None:
    script = "import os\nprint('attempt', os.environ['STELLWERK_ATTEMPT'])\nraise SystemExit(0 if os.environ['STELLWERK_ATTEMPT'] == '2' else 1)\n"
    view, log = ended(stack, script, max_retries=1)
    assert (view["status"], view["attempt"]) == ("Completed", 2)
    assert log == b"attempt 2\n"
    with stack.http() as http:
        first = request("GET", http, f"/runs/{view['run_id']}/logs/user_logs/attempt_1/std_log.txt")
        assert first.content == b"attempt 1\n"


def test_time_limit_of_a_run(stack: Stack) -> None:
    view, _ = ended(stack, "import time\ntime.sleep(600)\n", max_duration_s=1, grace_s=1)
    assert (view["status"], view["exit"]["reason"]) == ("Failed", "timeout")


def test_clusters_grow_and_shrink(stack: Stack) -> None:
    with stack.http() as http:
        compute = {
            "name": "elastic",
            "min_nodes": 0,
            "max_nodes": 2,
            "idle_seconds_before_scaledown": 2,
        }
        request("POST", http, "/compute", json=compute)
        assert request("GET", http, "/compute/elastic").json()["current_nodes"] == 0
        runs = [
            submit(http, run_body("import time\ntime.sleep(1)\n", target="elastic"))
            for _ in range(3)
        ]
        assert all(wait_terminal(http, run)["status"] == "Completed" for run in runs)
        assert request("GET", http, "/compute/elastic").json()["current_nodes"] in {1, 2}
        end = time.monotonic() + 60
        while request("GET", http, "/compute/elastic").json()["current_nodes"]:
            assert time.monotonic() < end
            time.sleep(0.2)
