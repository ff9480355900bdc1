"""The three ways in: the bus, REST, and status streams; the README's examples are what is run."""

import asyncio
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from stack import TERMINAL, Stack, log_text, request, run_body, submit, wait_terminal

from stellwerk import ids

EXAMPLES = Path(__file__).parents[2] / "training/examples/three-ways"
pytestmark = pytest.mark.slow


def example(stack: Stack, *command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=90, check=False, env=stack.environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_publish_on_the_bus_and_watch_there(stack: Stack) -> None:
    client_file = str(stack.home / "client.json")
    said = example(
        stack, sys.executable, str(EXAMPLES / "bus_submit.py"), client_file, "from-the-bus"
    )
    assert "accepted: from-the-bus" in said
    watched = example(
        stack, sys.executable, str(EXAMPLES / "bus_watch.py"), client_file, "from-the-bus"
    )
    lines = [line.split() for line in watched.splitlines()]
    assert [int(line[0]) for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0][1] == "preparing"
    assert lines[-1][1] == "completed"
    with stack.http() as http:
        assert log_text(http, "from-the-bus") == b"hello from the bus\n"
        submitted_at = http.get("/api/v1/runs/from-the-bus").json()["submitted_at"]
        assert abs(datetime.fromisoformat(submitted_at) - datetime.now(UTC)) < timedelta(minutes=5)


def test_a_message_that_is_no_submission_is_refused_with_the_reason(
    stack: Stack, tmp_path: Path
) -> None:
    misspelt = tmp_path / "bus_submit.py"
    misspelt.write_text(
        (EXAMPLES / "bus_submit.py").read_text().replace('"script": ', '"scrypt": ')
    )
    done = subprocess.run(
        [sys.executable, str(misspelt), str(stack.home / "client.json"), "misspelt"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
        env=stack.environment,
    )
    assert done.returncode == 1
    assert "refused: " in done.stderr
    reason = "spec.scrypt: There is no such field"
    assert reason in done.stderr
    shown = stack.command("run", "show", "misspelt")
    assert shown.returncode == 6
    assert "RUN: There is no run misspelt: its submission on the bus was refused" in shown.stderr
    assert reason in shown.stderr


def test_rest_with_server_sent_events(stack: Stack) -> None:
    said = example(stack, "bash", str(EXAMPLES / "rest.sh"), str(stack.home / "client.json"))
    assert "Completed" in said
    assert "hello over REST" in said


def test_status_stream_resumes_where_it_broke(stack: Stack) -> None:
    with stack.http() as http:
        run_id = submit(http, run_body("print(1)\n"))
        wait_terminal(http, run_id)
        everything = sse(stack, run_id, None)
        assert [item["sequence"] for item in everything] == list(range(1, len(everything) + 1))
        assert everything[-1]["status"] == "Completed"
        assert sse(stack, run_id, "2") == everything[2:]


def sse(stack: Stack, run_id: str, last: str | None) -> list[dict[str, object]]:
    headers = {"Last-Event-ID": last} if last else {}
    with (
        stack.http() as http,
        http.stream("GET", f"/api/v1/runs/{run_id}/events", headers=headers) as answer,
    ):
        assert answer.headers["content-type"].startswith("text/event-stream")
        return [json.loads(line[5:]) for line in answer.iter_lines() if line.startswith("data:")]


def test_forged_events_of_a_client_are_refused(stack: Stack) -> None:
    async def forge() -> None:
        async with stack.bus() as bus:
            with pytest.raises(Exception, match=r"timeout|ermission"):
                await bus.jetstream(timeout=1).publish("sw.evt.run.x.completed", b"{}")

    asyncio.run(forge())


def test_idempotency_key_makes_one_run(stack: Stack) -> None:
    with stack.http() as http:
        body = run_body("print(1)\n")
        first, again = submit(http, body, "same-key"), submit(http, body, "same-key")
        assert first == again
        other = request(
            "POST",
            http,
            "/runs",
            json=run_body("print(2)\n"),
            headers={"Idempotency-Key": "same-key"},
        )
        assert (other.status_code, other.json()["code"]) == (409, "idempotency.conflict")


def test_a_cancel_that_comes_before_its_submission_ends_the_run(stack: Stack) -> None:
    run_id = ids.run_id("default", "canceled-early")

    async def cancel() -> None:
        async with stack.bus() as bus:
            await bus.jetstream().publish(
                f"sw.evt.submission.{run_id}.cancel-requested",
                json.dumps({"run_id": run_id, "reason": "too early"}).encode(),
                headers={
                    "ce-id": f"submission/{run_id}/cancel-requested",
                    "ce-type": "stellwerk.submission.cancel-requested.v1",
                    "ce-source": "/test",
                    "ce-specversion": "1.0",
                    "ce-time": "2026-11-25T10:00:00Z",
                },
            )

    asyncio.run(cancel())
    with stack.http() as http:
        assert http.get(f"/api/v1/runs/{run_id}").status_code == 404
        assert submit(http, run_body("print('never')\n"), "canceled-early") == run_id
        view = wait_terminal(http, run_id)
        assert (view["status"], view["attempt"]) == ("Canceled", 0)
        assert log_text(http, run_id).find(b"never") == -1
        assert [item["status"] for item in sse(stack, run_id, None)] == ["NotStarted", "Canceled"]


def test_bad_events_on_the_bus_stop_nobody(stack: Stack) -> None:
    async def publish() -> None:
        async with stack.bus() as bus:
            js = bus.jetstream()
            kind = {"ce-type": "stellwerk.submission.submitted.v1"}
            await js.publish(
                "sw.evt.submission.bad-1.submitted", b"{not json", headers={**kind, "ce-id": "b1"}
            )
            await js.publish(
                "sw.evt.submission.bad-2.submitted",
                b'{"run_id": "other"}',
                headers={**kind, "ce-id": "b2"},
            )
            await js.publish(
                "sw.evt.submission.bad-3.submitted", b"x" * 200_000, headers={"ce-id": "b3"}
            )
            await js.publish(
                "sw.evt.submission.bad-4.submitted",
                b"{}",
                headers={"ce-id": "b4", "ce-type": "no.such.v1"},
            )

    asyncio.run(publish())
    with stack.http() as http:
        assert (
            wait_terminal(http, submit(http, run_body("print('still here')\n")))["status"]
            == "Completed"
        )


def test_unknown_names_fail_the_run_with_a_reason(stack: Stack) -> None:
    """Whoever publishes on the bus gets no answer at once: the run itself says what is wrong."""
    cases = {
        "bus-no-cluster": ({"target": "no-such-cluster"}, "no-such-cluster"),
        "bus-no-dataset": ({"inputs": {"d": {"dataset": "no-such-data"}}}, "no-such-data"),
        "bus-no-environment": ({"environment": {"name": "no-such-env"}}, "no-such-env"),
    }

    async def publish() -> None:
        async with stack.bus() as bus:
            for run_id, (change, _) in cases.items():
                body = {"run_id": run_id, **run_body("print(1)\n", **change)}
                headers = {
                    "ce-id": f"submission/{run_id}/submitted",
                    "ce-type": "stellwerk.submission.submitted.v1",
                }
                await bus.jetstream().publish(
                    f"sw.evt.submission.{run_id}.submitted",
                    json.dumps(body).encode(),
                    headers=headers,
                )

    asyncio.run(publish())
    with stack.http() as http:
        for run_id, (_, named) in cases.items():
            view = wait_terminal(http, run_id)
            assert view["status"] == "Failed"
            assert named in view["error"]["message"]


def test_the_same_unknown_names_are_refused_by_rest(stack: Stack) -> None:
    with stack.http() as http:
        for change, code in (
            ({"target": "no-such-cluster"}, "compute.not_found"),
            ({"inputs": {"d": {"dataset": "no-such-data"}}}, "dataset.not_found"),
            ({"environment": {"name": "no-such-env"}}, "environment.not_found"),
        ):
            answer = request("POST", http, "/runs", json=run_body("print(1)\n", **change))
            assert answer.json()["code"] == code, answer.text
            assert 400 <= answer.status_code < 500
        assert TERMINAL
