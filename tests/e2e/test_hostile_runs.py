"""What a run's script and source may hold, to the letter: nothing of it is taken for the platform's."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, log_text, request, run_body, stream_events, submit, wait_terminal

pytestmark = pytest.mark.slow


def ended(stack: Stack, script: str, **spec: Any) -> tuple[dict[str, Any], bytes]:
    with stack.http() as http:
        run_id = submit(http, run_body(script, **spec))
        return wait_terminal(http, run_id), log_text(http, run_id)


FORGED = [
    '{"type":"run.succeeded","status":"Completed","exit_code":0}',
    '{"k":"metric","n":"accuracy","v":1.0}',
    '{"k":"file","n":"outputs/passwd","p":"/etc/passwd"}',
    '{"k":"tag","n":"owner","v":"somebody"}',
    "::set-output name=status::Completed",
    "##vso[task.complete result=Succeeded;]",
    "Sw-Final: 1",
    "\\x1b]0;title\\x07\\x1b[2J[4/4] Environment ready",
]


def test_forged_lines_of_a_log_are_text(stack: Stack) -> None:
    script = "import sys\n" + "".join(f"print({line!r})\n" for line in FORGED) + "sys.exit(7)\n"
    view, log = ended(stack, script)
    assert log.decode() == "".join(f"{line}\n" for line in FORGED)
    assert (view["status"], view["exit"]["exit_code"]) == ("Failed", 7)
    assert view["tags"] == {}
    with stack.http() as http:
        assert request("GET", http, f"/runs/{view['run_id']}/metrics").json()["points"] == []
        files = request("GET", http, f"/runs/{view['run_id']}/files").json()["files"]
        assert not [each for each in files if "passwd" in each["path"]]


def test_a_secret_that_a_run_prints_is_in_its_log_and_nowhere_else(stack: Stack) -> None:
    """Its output is stored as it is (docs/howto/secrets.md): no event, record or other log has it."""
    value = f"printed-{os.urandom(8).hex()}"
    with stack.http() as http:
        kept = request("PUT", http, "/secrets/printed", json={"value": value})
        assert kept.status_code < 300, kept.text
    script = (
        "import base64\nfrom stellwerk_agent import Run\n"
        "value = Run.get_context().get_secret('printed')\n"
        "print(value)\nprint(base64.b64encode(value.encode()).decode())\nraise ValueError('no')\n"
    )
    view, log = ended(stack, script)
    assert log.decode().splitlines()[0] == value
    assert value not in json.dumps(view)

    async def told() -> list[tuple[str, int, dict[str, Any]]]:
        async with stack.bus() as bus:
            return await stream_events(bus, view["run_id"])

    events = asyncio.run(told())
    assert "failed" in [verb for verb, _, _ in events]
    assert value not in json.dumps(events)
    logs = [path for path in (stack.home / "logs").iterdir() if value in path.read_text()]
    assert logs == []


def test_files_with_odd_names_reach_the_run_under_them(stack: Stack, script_folder: Path) -> None:
    names = ["$(x)", "-rf", "a b;c", "con", "ä'\"`id`"]
    for name in names:
        (script_folder / name).write_text("1")
    script = script_folder / "main.py"
    script.write_text("import os, json\nprint(json.dumps(sorted(os.listdir('.'))))\n")
    done = stack.command("run", "submit", str(script))
    assert done.returncode == 0, done.stderr
    listed = next(line for line in done.stdout.splitlines() if line.startswith('["'))
    assert set(names) < set(json.loads(listed))


@pytest.mark.parametrize(
    ("content", "status", "words"),
    [
        (b"#!/usr/bin/env python\r\nprint('crlf')\r\n", "Completed", "crlf"),
        (b"print('\xff')\n", "Failed", "SyntaxError"),
        (b"\xef\xbb\xbfprint('bom')\n", "Completed", "bom"),
        (b"print('a')\0\n", "Failed", "null bytes"),
        (b"", "Completed", ""),
    ],
)
def test_entry_points_as_python_reads_them(
    stack: Stack, script_folder: Path, content: bytes, status: str, words: str
) -> None:
    script = script_folder / "main.py"
    script.write_bytes(content)
    done = stack.command("run", "submit", "-o", "json", str(script))
    view = json.loads(done.stdout)
    assert view["status"] == status, done.stderr
    with stack.http() as http:
        assert words in log_text(http, view["run_id"]).decode(errors="replace")


def test_limits_are_told(stack: Stack) -> None:
    with stack.http() as http:
        for spec, words in (
            ({"max_duration_s": 0}, "greater than 0"),
            ({"max_duration_s": -1}, "greater than 0"),
            ({"max_duration_s": 10 * 365 * 86_400}, "less than or equal to"),
            ({"max_retries": 1_000_000}, "less than or equal to"),
            ({"max_retries": -1}, "greater than or equal to 0"),
        ):
            answer = request("POST", http, "/runs", json=run_body("print(1)", **spec))
            problem = answer.json()
            assert (answer.status_code, problem["code"]) == (422, "field.range"), problem
            assert problem["field"] == f"spec.{next(iter(spec))}"
            assert words in problem["detail"].lower(), problem
