"""The in-run library against a plain Unix socket: records, files, faults of the connection."""

import ast
import io
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import stellwerk_agent
from stellwerk_agent import Run, RunEnvironmentError, UserError, protocol, transport

SOURCE = Path(stellwerk_agent.__file__).parent


class Inbox:
    """The supervisor's end: keeps every line of every connection."""

    def __init__(self, path: Path) -> None:
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.listener.setblocking(False)
        self.connections: list[socket.socket] = []
        self.partial: dict[socket.socket, bytes] = {}

    def take(self) -> list[dict[str, Any]]:
        """Every whole line that has been sent and not taken yet."""
        while True:
            try:
                self.connections.append(self.listener.accept()[0])
            except BlockingIOError:
                break
        records = []
        for connection in self.connections:
            connection.setblocking(False)
            data = self.partial.get(connection, b"")
            try:
                while part := connection.recv(1 << 20):
                    data += part
            except BlockingIOError:
                pass
            *lines, self.partial[connection] = data.split(b"\n")
            records += [json.loads(line) for line in lines]
        return records

    def close(self) -> None:
        for each in [self.listener, *self.connections]:
            each.close()


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    (tmp_path / "uploads").mkdir()
    monkeypatch.setenv("STELLWERK_RUN_ID", "run-" + tmp_path.name)
    monkeypatch.setenv("STELLWERK_RUN_SOCKET", str(tmp_path / "run.sock"))
    monkeypatch.setenv("STELLWERK_UPLOADS_DIR", str(tmp_path / "uploads"))
    box = Inbox(tmp_path / "run.sock")
    yield box
    box.close()


@pytest.fixture
def run(inbox: Inbox) -> Iterator[Run]:
    context = Run.get_context()
    assert isinstance(context, Run)
    yield context
    context._transport._close()


def numpy_like(name: str, value: Any) -> Any:
    kind = type(
        name,
        (),
        {"__float__": lambda _: value, "__int__": lambda _: value, "__bool__": lambda _: value},
    )
    kind.__module__ = "numpy"
    return kind()


@pytest.mark.parametrize(
    ("value", "stored"),
    [
        (0.1, 0.1),
        (3, 3),
        (True, True),
        (None, None),
        ("text", "text"),
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (2**70, 2.0**70),
        pytest.param(10**5000, "Infinity", id="huge"),
        pytest.param("\ud800", "?", id="surrogate"),
        ((1, 2), "(1, 2)"),
        (numpy_like("float32", 0.5), 0.5),
        (numpy_like("float64", math.nan), "NaN"),
        (numpy_like("int64", 7), 7),
        (numpy_like("bool_", True), True),
    ],
)
def test_log_stores_by_exact_type(run: Run, inbox: Inbox, value: Any, stored: Any) -> None:
    before = time.time()
    run.log("Final test loss ", value, step=3)
    (record,) = inbox.take()
    assert before - 0.001 <= record.pop("ts") <= time.time() + 0.001
    assert record == {"k": "metric", "n": "Final test loss ", "t": "scalar", "v": stored, "s": 3}
    assert type(record["v"]) is type(stored)


def test_descriptions_steps_and_odd_names(run: Run, inbox: Inbox) -> None:
    run.log('a"b\\ü\n', 1.5, "what it is")
    run.log("n", 1)
    first, second = inbox.take()
    assert (first["n"], first["d"], first["s"]) == ('a"b\\ü\n', "what it is", None)
    assert "d" not in second


def test_lists_rows_tables(run: Run, inbox: Inbox) -> None:
    run.log_list("l", (n * 0.5 for n in range(3)))
    run.log_list("empty", [])
    run.log_row("r", "described", x=1, y=math.nan)
    run.log_table("t", {"a": [1, 2], "b": ("x", None)})
    kept = [(r["n"], r["t"], r["v"]) for r in inbox.take()]
    assert kept == [
        ("l", "list", [0.0, 0.5, 1.0]),
        ("empty", "list", []),
        ("r", "row", {"x": 1, "y": "NaN"}),
        ("t", "table", {"a": [1, 2], "b": ["x", None]}),
    ]


def test_misuse_is_explained(run: Run) -> None:
    with pytest.raises(UserError, match="use log_list"):
        run.log("loss", [1, 2])
    with pytest.raises(UserError, match="name: got ''; give a text such as 'loss'"):
        run.log("", 1)
    with pytest.raises(UserError, match="same number"):
        run.log_table("t", {"a": [1], "b": [1, 2]})
    with pytest.raises(UserError, match="either path or plot"):
        run.log_image("i")
    with pytest.raises(TypeError, match="2 names for 1 paths"):
        run.upload_files(["a", "b"], ["a"])


def test_tags_and_properties(run: Run, inbox: Inbox) -> None:
    run.tag("Rank", 1)
    run.set_tags({"empty": None})
    run.add_properties({"p": "1"})
    run.add_properties({"p": 1})
    with pytest.raises(UserError, match="property 'p'"):
        run.add_properties({"p": "2"})
    kept = [(r["k"], r["n"], r["v"]) for r in inbox.take()]
    assert kept == [
        ("tag", "Rank", "1"),
        ("tag", "empty", None),
        ("property", "p", "1"),
        ("property", "p", "1"),
    ]


def test_upload_copies_at_once(run: Run, inbox: Inbox, tmp_path: Path) -> None:
    source = tmp_path / "w.bin"
    source.write_bytes(b"first")
    run.upload_file("./outputs/w.bin", str(source))
    source.write_bytes(b"second")
    run.upload_file("notes.txt", io.BytesIO(b"from a stream"))
    assert [(r["k"], r["n"], r["p"]) for r in inbox.take()] == [
        ("file", "outputs/w.bin", "outputs/w.bin"),
        ("file", "notes.txt", "notes.txt"),
    ]
    assert (tmp_path / "uploads/outputs/w.bin").read_bytes() == b"first"
    assert (tmp_path / "uploads/notes.txt").read_bytes() == b"from a stream"
    with pytest.raises(UserError, match=r"'outputs/w.bin': the run has a file of that name"):
        run.upload_file("outputs/w.bin", str(source))
    with pytest.raises(UserError, match="of that name"):
        run.upload_file("notes.txt/below", str(source))
    with pytest.raises(UserError, match="no file at"):
        run.upload_file("x", str(tmp_path / "missing"))
    assert isinstance(UserError("x"), ValueError)


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "", ".", "a/", "a\nb", "x" * 256, 5, "..\\x"]
)
def test_unsafe_names_are_refused(run: Run, inbox: Inbox, name: Any) -> None:
    with pytest.raises(UserError, match="file name"):
        run.upload_file(name, io.BytesIO(b"x"))
    assert inbox.take() == []


def test_upload_folder_leaves_links_out(run: Run, inbox: Inbox, tmp_path: Path) -> None:
    (tmp_path / "d/sub").mkdir(parents=True)
    (tmp_path / "d/b").write_bytes(b"b")
    (tmp_path / "d/sub/c").write_bytes(b"c")
    (tmp_path / "d/link").symlink_to("/etc/passwd")
    run.upload_folder("kept", str(tmp_path / "d"))
    assert [r["n"] for r in inbox.take()] == ["kept/b", "kept/sub/c"]


def test_images(run: Run, inbox: Inbox, tmp_path: Path) -> None:
    class Plot:
        def savefig(self, target: Any, **options: str) -> None:
            target.write(options["format"].encode())

    (tmp_path / "p.png").write_bytes(b"PNG")
    run.log_image("curve", path=str(tmp_path / "p.png"))
    run.log_image("curve", plot=Plot())
    first, second = inbox.take()
    assert (first["k"], first["n"], second["n"]) == ("image", "curve", "curve")
    assert first["f"] != second["f"]
    assert (tmp_path / "uploads" / first["f"]).read_bytes() == b"PNG"
    assert (tmp_path / "uploads" / second["f"]).read_bytes() == b"png"


def test_plots_are_kept_as_json_files(run: Run, inbox: Inbox, tmp_path: Path) -> None:
    class Array:
        def tolist(self) -> list[int]:
            return [1, 2]

    plot = {"schema_type": "residuals", "data": {"bin_edges": Array()}}
    run.log_residuals("residuals", plot)
    run.log_confusion_matrix("matrix ", '{"schema_type": "confusion_matrix"}', "why")
    first, second = inbox.take()
    assert (first["k"], first["n"], second["d"]) == ("artifact", "residuals", "why")
    assert second["f"].startswith("matrix _")
    kept = json.loads((tmp_path / "uploads" / first["f"]).read_text())
    assert kept == {"schema_type": "residuals", "data": {"bin_edges": [1, 2]}}
    for bad in ("{", 7, [1]):
        with pytest.raises(UserError, match="JSON"):
            run.log_predictions("p", bad)


def test_context_is_one_object_and_sets_no_status(run: Run, inbox: Inbox) -> None:
    with Run.get_context() as again:
        assert again is run
    run.fail("never mind")
    run.flush()
    assert inbox.take() == []


def test_inputs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_DATASET_ENVIRONMENT_VARS", "mnist:Mount,raw:Direct,gone:Mount")
    monkeypatch.setenv("mnist", "/data/mnist")
    monkeypatch.setenv("AZURE_ML_INPUT_raw", "dataset-id")
    monkeypatch.setenv("AZUREML_DATASET_FILE_OUTPUTS", "out")
    monkeypatch.setenv("AZURE_ML_OUTPUT_out", "/out")
    monkeypatch.setenv("AZUREML_ARM_PROJECT_NAME", "digits")
    assert run.input_datasets == {"mnist": "/data/mnist", "raw": "dataset-id"}
    assert run.output_datasets == {"out": "/out"}
    assert run.experiment.name == "digits"
    assert run.id == os.environ["STELLWERK_RUN_ID"]


def test_forked_processes_have_their_own_connection(run: Run, inbox: Inbox) -> None:
    run.log("parent", 0)
    children = []
    for number in range(4):
        child = os.fork()
        if child == 0:
            for step in range(50):
                run.log(f"child {number}", step, step=step)
            os._exit(0)
        children.append(child)
    assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
    run.log("parent", 1)
    records = inbox.take()
    assert len(inbox.connections) == 5
    for number in range(4):
        assert [r["v"] for r in records if r["n"] == f"child {number}"] == list(range(50))
    assert [r["v"] for r in records if r["n"] == "parent"] == [0, 1]


def test_threads_keep_lines_whole(run: Run, inbox: Inbox) -> None:
    def work(number: int) -> None:
        for step in range(200):
            run.log(f"thread {number}", step)

    records: list[dict[str, Any]] = []
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive():
            records += inbox.take()
            thread.join(0.001)
    records += inbox.take()
    for number in range(4):
        values = [r["v"] for r in records if r["n"] == f"thread {number}"]
        assert values == list(range(200))


def test_log_in_a_signal_handler(run: Run, inbox: Inbox) -> None:
    before = signal.signal(signal.SIGALRM, lambda *_: run.log("alarm", 1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    records: list[dict[str, Any]] = []
    try:
        for step in range(5000):
            run.log("step", step)
            if step % 20 == 0:
                records += inbox.take()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    records += inbox.take()
    assert [r["v"] for r in records if r["n"] == "step"] == list(range(5000))
    assert any(r["n"] == "alarm" for r in records)


def test_broken_connection_is_opened_again(run: Run, inbox: Inbox) -> None:
    run.log("a", 1)
    assert len(inbox.take()) == 1
    inbox.connections.pop().close()
    run.log("b", 2)
    assert [r["n"] for r in inbox.take()] == ["b"]


def test_absent_supervisor_never_raises(
    run: Run,
    inbox: Inbox,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox.close()
    (tmp_path / "run.sock").unlink()
    for step in range(3):
        run.log("a", step)
    err = capsys.readouterr().err
    assert err.count("stellwerk:") == 1
    assert "training goes on" in err
    again = Inbox(tmp_path / "run.sock")
    monkeypatch.setattr(run._transport, "_closed_until", time.monotonic())
    run.log("a", 3)
    gap, record = again.take()
    assert (gap["k"], gap["by"], gap["records"]) == ("dropped", "agent", 3)
    assert record["v"] == 3
    again.close()


def test_stuck_supervisor_costs_a_bounded_time(
    run: Run, inbox: Inbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run._transport, "_wait_s", 1)
    started = time.monotonic()
    for step in range(20_000):
        run.log("a", step)
    assert 0.9 < time.monotonic() - started < 10
    assert capsys.readouterr().err.count("metrics are being dropped") == 1
    values = [r["v"] for r in inbox.take()]
    assert values == list(range(len(values)))
    assert 100 < len(values) < 20_000


def test_too_long_a_record_is_dropped(
    run: Run, inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    run.log("big", "x" * protocol.LINE_BYTES)
    run.log("small", 1)
    assert [r["n"] for r in inbox.take()] == ["small"]
    assert "too long" in capsys.readouterr().err


def test_waits_are_bounded_in_production() -> None:
    assert (transport.FIRST_WAIT_S, transport.LATER_WAIT_S, transport.PAUSE_S) == (5, 1, 60)


def test_offline_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STELLWERK_RUN_ID", raising=False)
    monkeypatch.delenv("STELLWERK_RUN_SOCKET", raising=False)
    with pytest.raises(RunEnvironmentError):
        Run.get_context(allow_offline=False)
    run = Run.get_context()
    assert run.id.startswith("OfflineRun_")
    assert len(run.id) == len("OfflineRun_") + 36
    with run:
        run.log("loss", 0.5, "described")
        run.log_list("l", [1, 2])
        run.log_row("r", x=1)
        run.log_table("t", {"a": [1]})
        run.log_image("i", path="p.png")
        run.tag("k", 1)
        run.set_tags({"a": 1})
        run.add_properties({"p": 2})
        run.upload_file("n", "p")
        run.upload_folder("n", "d")
        run.upload_files(["n"], ["p"], timeout_seconds=9)
    assert capsys.readouterr().out == (
        f"[START] Run {run.id} context\n"
        "Attempted to log scalar metric loss:\n0.5\n"
        "Attempted to log list metric l:\n[1, 2]\n"
        "Attempted to log row metric r:\n{'x': 1}\n"
        "Attempted to log table metric t:\n{'a': [1]}\n"
        "Attempted to log image metric i:\np.png\n"
        "Attempted to add tag k with value 1\n"
        "Attempted to set tags {'a': 1}\n"
        "Attempted to add properties {'p': 2}\n"
        "Attempted to track file n at p\n"
        "Attempted to track folder n at d\n"
        "Attempted to track files ['n'] at ['p'] with timeout 9\n"
        f"[STOP] Run {run.id} context\n"
    )
    for missing in ("experiment", "input_datasets", "parent", "get_metrics"):
        assert not hasattr(run, missing)


@pytest.mark.parametrize("path", sorted(SOURCE.glob("*.py")), ids=lambda path: path.name)
def test_python_36_syntax(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    assert not [n for n in ast.walk(tree) if isinstance(n, ast.NamedExpr)]


def test_standard_library_only_and_light() -> None:
    code = f"import sys; sys.path.insert(0, {str(SOURCE.parent)!r}); import stellwerk_agent; print(*sys.modules)"
    out = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True
    )
    loaded = {name.split(".")[0] for name in out.stdout.split()} - {"stellwerk_agent"}
    assert loaded <= set(sys.stdlib_module_names) | {"__main__"}
    assert not loaded & {"typing", "uuid", "asyncio", "ctypes"}
