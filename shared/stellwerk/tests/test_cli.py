"""The command line: results on stdout, messages on stderr, documented exit codes."""

import json
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from scripted_platform import TOKEN, Fault, Platform

from stellwerk.cli import main
from stellwerk.cli.lazy import LazyGroup
from stellwerk.errors import ServiceUnavailableError
from stellwerk.events import ProducedDataset
from stellwerk.runspec import InputArgument

HELP_CPU_S = 0.15
DOCS = Path(__file__).parents[3] / "docs" / "howto" / "exit-codes.md"


class Cli:
    """Runs commands in this process: exit code, stdout, stderr."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: object) -> tuple[int, str, str]:
        code = main([str(each) for each in arguments])
        out, err = self._capsys.readouterr()
        return code, out, err

    def json(self, *arguments: object) -> Any:
        code, out, _ = self(*arguments, "-o", "json")
        assert code == 0
        return json.loads(out)


@pytest.fixture
def cli(
    platform: Platform, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Cli:
    monkeypatch.setenv("STELLWERK_URL", platform.url)
    monkeypatch.setenv("STELLWERK_TOKEN", TOKEN)
    return Cli(capsys)


@pytest.fixture(autouse=True)
def _closed_clients(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A command's process ends with it; here its connections have to be closed by hand."""
    from stellwerk.client import Client

    made: list[Client] = []
    build = Client.__init__

    def remember(self: Client, *args: Any, **more: Any) -> None:
        build(self, *args, **more)
        made.append(self)

    monkeypatch.setattr(Client, "__init__", remember)
    yield
    for each in made:
        each.close()


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "source" / "train.py"
    path.parent.mkdir()
    path.write_text("print('hello')\n")
    return path


def environment(platform: Platform) -> dict[str, str]:
    return {**os.environ, "STELLWERK_URL": platform.url, "STELLWERK_TOKEN": TOKEN}


# --- help, usage, exit codes ------------------------------------------------------------------


def test_help_is_quick_and_documents_the_exit_codes() -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "stellwerk.cli", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime <= HELP_CPU_S
    documented = DOCS.read_text()
    for code in (0, 1, 2, 3, 4, 5, 6, 100, 103, 104, 130):
        assert f"\n    {code} " in done.stdout
        assert f"| {code} |" in documented


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["run", "submit", "--help"]])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from stellwerk.cli import main; main(sys.argv[1:]);"
        "print([m for m in ('httpx2', 'pydantic', 'yaml') if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
    )
    assert done.stderr.strip() == "[]"


def test_every_command_has_help(cli: Cli) -> None:
    from stellwerk.cli import cli as top

    assert isinstance(top, LazyGroup)
    for name in ("run", "dataset", "environment", "compute", "model"):
        code, out, _ = cli(name, "--help")
        assert code == 0
        assert "Commands:" in out


def test_server_commands_without_the_server(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stellwerk_embedded", None)
    monkeypatch.delitem(sys.modules, "stellwerk_embedded.cli", raising=False)
    code, _, err = cli("up")
    assert code == 1
    assert "`make setup` in a checkout" in err


def test_exit_codes(platform: Platform, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("run", "submit", "--priority", 101, "a.py")[0] == 2
    assert cli("nonsense")[0] == 2
    assert cli("compute", "create", "c", "--max-nodes", 1)[0] == 0
    code, out, err = cli("compute", "create", "c", "--max-nodes", 1)
    assert (code, out, err) == (5, "", "Error: c exists already\n")
    assert cli("compute", "show", "nope")[0] == 6
    platform.faults.append(Fault("/compute", 409))
    assert cli("compute", "list")[0] == 5
    platform.faults.append(Fault("/compute", 500))
    assert cli("compute", "list")[0] == 1
    monkeypatch.setenv("STELLWERK_TOKEN", "wrong")
    code, _, err = cli("compute", "list")
    assert (code, "(from STELLWERK_URL) does not take this token" in err) == (3, True)
    monkeypatch.setattr("stellwerk.client._FIRST_CONTACT_S", 0.0)
    monkeypatch.setenv("STELLWERK_URL", "http://127.0.0.1:9")
    assert cli("compute", "list")[0] == 4
    monkeypatch.delenv("STELLWERK_URL")
    code, _, err = cli("compute", "list")
    assert code == 4
    assert "stellwerk up" in err


# --- submit -----------------------------------------------------------------------------------


def test_submit_shows_the_run(platform: Platform, cli: Cli, script: Path) -> None:
    platform.on_submit = platform.complete
    code, out, err = cli("run", "submit", script, "--batch-size", "50", "-d")
    assert code == 0
    assert "Streaming user_logs/std_log.txt" in out
    assert "hello\n" in out
    assert "phase running: 2.0 s" in err
    (run,) = platform.runs.values()
    assert run.view.spec is not None
    assert run.view.spec.arguments == ("--batch-size", "50", "-d")


def test_submit_as_json_keeps_stdout_clean(platform: Platform, cli: Cli, script: Path) -> None:
    platform.on_submit = platform.complete
    code, out, err = cli("run", "submit", "-o", "json", script)
    assert code == 0
    assert json.loads(out)["status"] == "Completed"
    assert "hello\n" in err


def test_submit_detached_with_everything(platform: Platform, cli: Cli, script: Path) -> None:
    (script.parent / "data").write_text("x")
    assert cli("dataset", "register", "mnist", script.parent / "data")[0] == 0
    code, out, err = cli(
        "run", "submit", "-d", "--source", script.parent, "--experiment", "e", "--compute", "gpu",
        "--package", "keras>=3", "--input", "d=mnist:1:download", "--env", "A=b=c", "--tag", "k=v",
        "--tag", "flag", "--priority", 70, "--max-retries", 2, "--name", "first",
        "--output-data", "made=cleaned data", "--output-data", "loose", "--distributed", "mpi:2",
        "--gpus", 2, "--cpus", 1.5, "--memory", "2GB", "--max-duration", "90m", "train.py",
        "--data", "{d}", "{other}", "{made}",
    )  # fmt: skip
    assert code == 0
    (run_id,) = platform.runs
    assert out == f"{run_id}\n"
    assert f"stellwerk run logs -f {run_id[:12]}" in err
    spec = platform.runs[run_id].view.spec
    assert spec is not None
    content = spec.model_dump(mode="json")
    assert content["arguments"] == ["--data", {"input": "d"}, "{other}", {"output": "made"}]
    assert content["outputs"]["made"]["register_as"]["name"] == "cleaned data"
    assert content["outputs"]["loose"]["register_as"] is None
    assert content["inputs"]["d"] == {
        "dataset": "mnist", "version": 1, "mode": "download", "path": None,
            "lazy": None,
    }  # fmt: skip
    assert content["environment"]["pip_packages"] == ["keras>=3"]
    assert content["environment_variables"] == {"A": "b=c"}
    assert (content["distributed"]["backend"], content["distributed"]["process_count"]) == (
        "mpi",
        2,
    )
    assert content["resources"] == {"cpus": 1.5, "memory_mb": 2 * 10**9 // 2**20, "gpus": 2}
    assert content["max_duration_s"] == 5400
    assert content["tags"] == {"k": "v", "flag": None}
    wanted = ("gpu", 70, 2, "first")
    assert (spec.target, spec.priority, spec.max_retries, spec.display_name) == wanted


def test_submit_a_command(platform: Platform, cli: Cli, script: Path) -> None:
    (script.parent / "data").write_text("x")
    assert cli("dataset", "register", "mnist", script.parent / "data")[0] == 0
    common = ("run", "submit", "-d", "--command", "--source", script.parent, "--input", "d=mnist")
    code, out, _ = cli(*common, "sh", "-c", "ls $0", "{d}")
    assert code == 0
    spec = platform.runs[out.strip()].view.spec
    assert spec is not None
    assert (spec.script, spec.command) == (None, ("sh",))
    assert spec.arguments == ("-c", "ls $0", InputArgument(input="d"))
    code, _, err = cli("run", "submit", "--command", "--source", script.parent / "none", "ls")
    assert (code, "none" in err) == (1, True)
    code, _, err = cli("run", "submit", script.with_suffix(".sh"))
    assert (code, "`run submit --command sh SCRIPT` runs it" in err) == (1, True)


def test_submit_tells_what_the_outputs_have_become(
    platform: Platform, cli: Cli, script: Path
) -> None:
    made = {"datastore": "workspaceblobstore", "path": "dataset/r/a"}
    outputs = {
        "a": ProducedDataset(
            dataset_id="1", name="cleaned", version=3, files=2, bytes=1_200_000, **made
        ),
        "b": ProducedDataset(dataset_id="2", files=1, bytes=1, **made),
        "c": ProducedDataset(dataset_id=None, **made),
    }

    def complete(run: str) -> None:
        platform.complete(run)
        platform.event(run, "Completed", "DatasetProduced", outputs=outputs)

    platform.on_submit = complete
    asked = [text for name in ("a=cleaned", "b", "c") for text in ("--output-data", name)]
    code, out, err = cli("run", "submit", *asked, script)
    assert code == 0
    assert [line for line in err.splitlines() if line.startswith("output ")] == [
        "output a: dataset cleaned:3 (2 files, 1.2 MB)",
        "output b: dataset 2 (1 file, 1 B)",
        "output c: no dataset, see the warnings",
    ]
    assert "cleaned:3" not in out


@pytest.mark.parametrize(("status", "code"), [("Failed", 100), ("Canceled", 103)])
def test_submit_tells_how_it_ended(
    platform: Platform, cli: Cli, script: Path, status: str, code: int
) -> None:
    platform.on_submit = lambda run: platform.event(run, status)
    assert cli("run", "submit", script)[0] == code


def test_submit_refuses(cli: Cli, script: Path) -> None:
    assert cli("run", "submit", script.parent / "nope.py")[0] == 1
    assert cli("run", "submit", "--input", "no", script)[0] == 2
    assert cli("run", "submit", "--distributed", "smoke:2", script)[0] == 2
    assert cli("run", "submit", "--interpreter", "python", "--conda", "b", script)[0] == 2
    assert cli("run", "submit", "--input", "d=absent", script)[0] == 6
    assert cli("run", "submit", "--package", "a", "--conda", "b", script)[0] == 2
    assert cli("run", "submit", "--env", "A", script)[0] == 1
    assert cli("run", "submit", "--gpus", 65, script)[0] == 2
    assert cli("run", "submit", "--cpus", 0, script)[0] == 2
    assert cli("run", "submit", "--memory", "much", script)[0] == 2
    assert cli("run", "submit", "--max-duration", "soon", script)[0] == 2
    code, _, err = cli("run", "submit", "--memory", "1MB", script)
    assert (code, "memory_mb" in err) == (1, True), err
    assert cli("run", "submit", "--output-data", "a-b", script)[0] == 1


def test_the_usual_slips_are_told_what_to_do(platform: Platform, cli: Cli, script: Path) -> None:
    code, _, err = cli("run", "submit", "--epochs", 5, script)
    assert (code, "come after SCRIPT" in err) == (2, True)
    code, _, err = cli("run", "submit", script.parent)
    assert code == 1
    assert f"{str(script.parent)!r} is a folder" in err
    code, _, err = cli("run", "submit", script.with_suffix(".ipynb"))
    assert (code, "is a notebook (jupyter nbconvert" in err) == (1, True)
    code, _, err = cli("submit", script)
    assert (code, "Did you mean stellwerk run submit?" in err) == (2, True)
    assert "stellwerk environment build?" in cli("build", "x")[2]
    platform.on_submit = platform.complete
    code, _, err = cli("run", "submit", script, "--data", "{mnist}", '{"a": 1}')
    assert code == 0
    assert err.count("Note: ") == 1
    assert "Note: {mnist} stays as it is, no --input" in err
    (run,) = platform.runs.values()
    assert run.view.spec is not None
    assert run.view.spec.arguments == ("--data", "{mnist}", '{"a": 1}')


def test_who_loses_the_platform_is_told_how_to_go_on(
    platform: Platform, cli: Cli, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise ServiceUnavailableError("Cannot reach the platform")

    monkeypatch.setattr("stellwerk.run.Run.wait_for_completion", gone)
    code, _, err = cli("run", "submit", script)
    (run_id,) = platform.runs
    assert code == 4
    assert f"Watch it again: stellwerk run logs -f {run_id[:12]}" in err


def test_ctrl_c_leaves_the_run_alone(platform: Platform, script: Path) -> None:
    def start(run: str) -> None:
        platform.event(run, "Running", attempt=1)
        platform.print(run, b"working\n")

    platform.on_submit = start
    # A shell lets what it starts behind itself ignore the signal, these tests and all below them;
    # what is started by a process that handles it does not.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        [sys.executable, "-m", "stellwerk.cli", "run", "submit", str(script)],
        env=environment(platform),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    signal.signal(signal.SIGINT, before)
    assert process.stdout
    while "working" not in process.stdout.readline():
        pass
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    (run_id,) = platform.runs
    assert process.returncode == 130
    assert f"stellwerk run logs -f {run_id}" in err
    assert "Traceback" not in err
    assert platform.calls("POST", f"/runs/{run_id}/cancel") == []


# --- the other commands -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [("run", "list", "--experiment"), ("run", "show"), ("model", "show"), ("compute", "show")],
)
def test_a_name_that_is_no_text_is_refused_in_words(cli: Cli, command: tuple[str, ...]) -> None:
    code, _, err = cli(*command, os.fsdecode(b"caf\xe9"))
    assert code == 1
    assert "no text" in err


def test_runs_by_prefix(platform: Platform, cli: Cli) -> None:
    first = platform.add_run(run_id="abc" + "0" * 29)
    second = platform.add_run(run_id="abd" + "0" * 29)
    platform.complete(second)
    assert [run["run_id"] for run in cli.json("run", "list")] == [second, first]
    assert cli("run", "list", "--limit", 1)[1].splitlines()[1].startswith("abd0000")
    assert cli.json("run", "show", "ABC")["run_id"] == first
    platform.event(first, "Running", phases={"preparing": 1.5, "running": 0.25})
    shown = cli("run", "show", "ABC")[1]
    assert [line.split() for line in shown.splitlines() if line.startswith("phases")] == [
        ["phases.preparing", "1.5"], ["phases.running", "0.25"],
    ]  # fmt: skip
    assert not {"{", "["} & set(shown)
    code, _, err = cli("run", "show", "ab")
    assert code == 5
    assert "abd000000000, abc000000000" in err
    assert cli("run", "show", "xyz")[0] == 6
    assert cli("run", "show", "")[2] == "Error: RUN: give a run's id, or its first letters\n"
    assert [run["run_id"] for run in cli.json("run", "list", "--status", "completed")] == [second]
    short = [platform.add_run(run_id=name) for name in ("my-run", "my-run-2")]
    assert cli.json("run", "show", "my-run")["run_id"] == short[0]
    assert cli("run", "cancel", "abc")[1] == f"Run {first}: Canceled\n"
    assert cli("run", "logs", "abd")[1] == "hello\n"
    code, _, err = cli("run", "logs", "abd", "--path", "nope")
    assert (code, "It has: user_logs/std_log.txt" in err) == (6, True)


def test_logs_follow(platform: Platform, cli: Cli) -> None:
    run = platform.add_run()
    platform.event(run, "Running", attempt=1)
    platform.print(run, b"one\n")

    def finish() -> None:
        platform.print(run, b"two\n")
        platform.close_log(run)

    timer = threading.Timer(0.2, finish)
    timer.start()
    assert cli("run", "logs", "-f", run)[:2] == (0, "one\ntwo\n")
    timer.join()


def test_raw_bytes_of_a_log_pass_unchanged_into_a_pipe(platform: Platform) -> None:
    run = platform.add_run()
    data = b"\x1b[31mred\x00\xff\r\n"
    platform.print(run, data)
    done = subprocess.run(
        [sys.executable, "-m", "stellwerk.cli", "run", "logs", run],
        env=environment(platform),
        capture_output=True,
        check=True,
    )
    assert done.stdout == data


def test_files_metrics_and_download(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    run = platform.add_run()
    platform.runs[run].files = {"outputs/a\x1b[2J.txt": platform.blob(b"a")}
    assert "\x1b" not in cli("run", "files", run)[1]
    platform.runs[run].files = {"outputs/a.txt": platform.blob(b"a")}
    assert cli.json("run", "files", run)[0]["path"] == "outputs/a.txt"
    code, out, err = cli("run", "download", run, "outputs", "--to", tmp_path / "d")
    assert (code, out) == (0, f"{tmp_path}/d/outputs/a.txt\n")
    assert "done, 1/1 files" in err
    assert cli.json("run", "metrics", run) == {}


def test_datasets(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "x").write_text("1")
    assert cli("dataset", "register", "d", tmp_path / "x")[1] == "d:1\n"
    assert "registered already" in cli("dataset", "register", "d", tmp_path / "x")[1]
    (tmp_path / "x").write_text("2")
    assert cli("dataset", "register", "d", tmp_path / "x")[0] == 5
    assert cli("dataset", "register", "d", tmp_path / "x", "--new-version")[1] == "d:2\n"
    assert cli.json("dataset", "show", "d:1")["version"] == 1
    assert cli("dataset", "show", "d:0")[0] == 2
    assert len(cli.json("dataset", "list")) == 2
    assert cli.json("dataset", "files", "d")[0]["path"] == "x"
    cli("dataset", "download", "d", "--to", tmp_path / "got")
    assert (tmp_path / "got" / "x").read_text() == "2"


def test_only_web_addresses_and_files_make_a_dataset(cli: Cli) -> None:
    code, _, err = cli("dataset", "register", "d", "file:///etc/passwd")
    assert code == 1
    assert "'file:///etc/passwd' is neither a web address" in err


def test_a_folder_that_cannot_be_written_is_named(cli: Cli, tmp_path: Path) -> None:
    in_the_way = tmp_path / "taken"
    in_the_way.write_text("1")
    cli("dataset", "register", "digits", in_the_way)
    code, _, err = cli("dataset", "download", "digits", "--to", in_the_way / "below")
    assert code == 1
    assert str(in_the_way) in err
    assert "Traceback" not in err


def test_environments(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    assert cli("environment", "register", "tf", "--package", "keras")[1] == "tf:1\n"
    assert "registered already" in cli("environment", "register", "tf", "--package", "keras")[1]
    assert cli("environment", "register", "tf")[0] == 2
    platform.build_log = b"resolved\n"
    code, out, err = cli("environment", "build", "tf")
    assert (code, out, err) == (0, "tf: ready\n", "resolved\n")
    assert cli("environment", "log", "tf:1")[1] == "resolved\n"
    platform.built_before = True
    assert "tf: ready (built before; --rebuild" in cli("environment", "build", "tf")[1]
    platform.build_state, platform.built_before = "failed", False
    assert cli("environment", "build", "tf")[0] == 1
    assert cli.json("environment", "list")[0]["name"] == "tf"
    assert cli("environment", "show", "nope")[0] == 6


def test_clusters(cli: Cli) -> None:
    arguments = ("compute", "create", "cpu", "--max-nodes", 4, "--idle-seconds", 300)
    assert cli.json(*arguments)["idle_seconds_before_scaledown"] == 300
    assert cli.json("compute", "update", "cpu", "--max-nodes", 2)["max_nodes"] == 2
    assert cli("compute", "list")[1].splitlines()[1].split()[0] == "cpu"
    assert cli("compute", "delete", "cpu")[:2] == (0, "")
    assert cli.json("compute", "list") == []


def test_models(platform: Platform, cli: Cli, tmp_path: Path) -> None:
    run = platform.add_run()
    platform.runs[run].files = {"outputs/m": platform.blob(b"m")}
    assert cli("model", "register", "digits", "outputs/m", "--run", run[:8])[1] == "digits:1\n"
    (tmp_path / "m").write_text("local")
    assert cli("model", "register", "digits", tmp_path / "m")[1] == "digits:2\n"
    assert [each["model_id"] for each in cli.json("model", "list")] == ["digits:2"]
    versions = cli.json("model", "list", "--name", "digits")
    assert [each["model_id"] for each in versions] == ["digits:2", "digits:1"]
    assert cli.json("model", "show", "digits:1")["lineage"]["run_id"] == run
    assert cli("model", "download", "digits", "--to", tmp_path / "d")[1] == f"{tmp_path}/d/m\n"
    assert cli("model", "delete", "digits")[0] == 2
    assert cli("model", "delete", "digits:2")[0] == 0
    assert len(cli.json("model", "list")) == 1


def test_version(platform: Platform, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli.json("version")["platform"] == "9.9"
    monkeypatch.delenv("STELLWERK_URL")
    code, out, err = cli("version")
    assert code == 0
    assert "platform  -" in out
    assert "stellwerk up" in err
