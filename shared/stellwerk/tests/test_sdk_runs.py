"""Runs against the scripted platform: submission, live output, metrics, files, tags."""

import io
import threading
from pathlib import Path
from typing import Any

import pytest
from scripted_platform import NOW, Platform

from stellwerk import (
    ConflictError,
    Dataset,
    Experiment,
    NotFoundError,
    Run,
    RunFailedError,
    ScriptRunConfig,
    Workspace,
)
from stellwerk.api import ErrorView, MetricPoint, RunEventView
from stellwerk.phases import PhasePrinter
from stellwerk.watch import BUILD_LOG, LogChunk, watch


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "train.py").write_text("print('hello')\n")
    return folder


def submit(workspace: Workspace, source: Path, **more: Any) -> Run:
    return Experiment(workspace, "e").submit(ScriptRunConfig(str(source), "train.py", **more))


def test_submit(platform: Platform, workspace: Workspace, source: Path) -> None:
    (platform.datastore)["mnist/x.gz"] = platform.blob(b"x")
    data = Dataset.File.from_files((workspace.get_default_datastore(), "mnist"))
    run = Experiment(workspace, "e").submit(
        ScriptRunConfig(str(source), "train.py", ["--data", data.as_mount()], max_retries=2),
        tags={"rank": 1},  # type: ignore[dict-item]
    )
    spec = platform.runs[run.id].view.spec
    assert spec is not None
    assert (run.status, run.experiment.name, spec.max_retries) == ("NotStarted", "e", 2)
    assert run.get_tags() == {"rank": "1"}
    assert next(iter(spec.inputs.values())).dataset == data.id
    details = run.get_details()
    assert details["runDefinition"]["arguments"][1].startswith("DatasetConsumptionConfig:input_")
    assert details["properties"]["ContentSnapshotId"] == spec.source.snapshot  # type: ignore[union-attr]


def test_wait_prints_exactly_the_v1_form(
    platform: Platform, workspace: Workspace, source: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on_submit = lambda run: platform.complete(run, b"epoch 1\nepoch 2")
    run = submit(workspace, source)
    details = run.wait_for_completion(show_output=True)
    head = f"RunId: {run.id}\nWeb View: {run.get_portal_url()}\n"
    assert capsys.readouterr().out == (
        f"{head}\nStreaming user_logs/std_log.txt\n{'=' * 31}\n\nepoch 1\nepoch 2\n"
        f"\nExecution Summary\n=================\n{head}\n"
    )
    assert (details["status"], details["runId"]) == ("Completed", run.id)
    assert run.phases["running"] == 2.0


def test_output_is_live_and_the_log_changes(platform: Platform, workspace: Workspace) -> None:
    run = platform.add_run()
    seen: list[str] = []
    got = threading.Semaphore(0)

    def read() -> None:
        for item in watch(workspace.client, run):
            seen.append(item.data.decode() if isinstance(item, LogChunk) else item.type)
            got.release()

    def expect(*parts: str) -> None:
        for part in parts:
            assert got.acquire(timeout=10), (part, seen)
            assert seen[-1] == part or part in seen

    reader = threading.Thread(target=read)
    reader.start()
    platform.event(run, "Preparing", "RunPreparing")
    platform.event(run, "Preparing", "ImageBuildStarted")
    expect("RunPreparing", "ImageBuildStarted")
    platform.print(run, b"resolving", BUILD_LOG)
    expect("resolving")
    platform.event(run, "Starting", "RunAssigned", attempt=1)
    platform.event(run, "Running", "RunStarted")
    expect("RunAssigned", "RunStarted")
    platform.print(run, b"one")
    expect("one")
    platform.print(run, b"late", BUILD_LOG)  # of a log that is no longer shown
    platform.print(run, b"two")
    expect("two")
    platform.close_log(run)
    platform.event(run, "Completed")
    reader.join(10)
    assert not reader.is_alive()
    assert "late" not in seen


def test_each_attempt_begins_a_new_log(platform: Platform, workspace: Workspace) -> None:
    run = platform.add_run()
    items = watch(workspace.client, run)
    platform.event(run, "Running", "RunStarted", attempt=1)
    platform.print(run, b"first")
    assert isinstance(next(items), RunEventView)
    assert next(items) == LogChunk("user_logs/std_log.txt", 1, b"first")
    platform.retry(run)
    types = [item.type for item in (next(items), next(items)) if isinstance(item, RunEventView)]
    assert types == ["RunRetrying", "RunAssigned"]
    platform.print(run, b"second")
    platform.close_log(run)
    platform.event(run, "Completed")
    rest = [item for item in items if isinstance(item, LogChunk)]
    assert rest == [LogChunk("user_logs/std_log.txt", 2, b"second")]


def test_gateway_restart_is_invisible(platform: Platform, workspace: Workspace) -> None:
    run = platform.add_run()
    events = f"/runs/{run}/events"
    items = watch(workspace.client, run)
    platform.event(run, "Running", "RunStarted", attempt=1)
    platform.print(run, b"one ")
    assert isinstance(next(items), RunEventView)
    log = next(items).data  # type: ignore[union-attr]
    platform.restart()
    platform.print(run, b"two ")
    log += next(items).data  # type: ignore[union-attr]
    platform.await_calls("GET", events, 2)  # the log's reader may be back before that of events
    platform.restart()
    platform.print(run, b"three")
    platform.close_log(run)
    platform.event(run, "Completed")
    rest = list(items)
    log += b"".join(item.data for item in rest if isinstance(item, LogChunk))
    assert log == b"one two three"
    assert [item.sequence for item in rest if isinstance(item, RunEventView)] == [2]
    again = platform.calls("GET", events)
    assert [headers.get("last-event-id") for headers in again] == [None, "1", "1"]


def test_a_followed_log_goes_on_with_the_next_attempt(
    platform: Platform, workspace: Workspace
) -> None:
    run = Run.get(workspace, platform.add_run())
    platform.event(run.id, "Running", "RunStarted", attempt=1)
    platform.print(run.id, b"first, ")
    chunks = run.logs(follow_it=True)
    assert next(chunks) == b"first, "
    platform.restart()
    platform.print(run.id, b"and its end; ")  # the reader comes back after the retry
    platform.retry(run.id)
    platform.print(run.id, b"second")
    assert next(chunks) == b"and its end; "
    platform.event(run.id, "Running", "RunStarted")
    platform.close_log(run.id)
    platform.event(run.id, "Completed")
    assert b"".join(chunks) == b"second"


def test_failed_run(platform: Platform, workspace: Workspace, source: Path, capsys: Any) -> None:
    def fail(run: str) -> None:
        platform.event(run, "Running", attempt=1)
        error = ErrorView(code="run.exit", message="exit code 3")
        platform.event(run, "Failed", error=error)

    platform.on_submit = fail
    run = submit(workspace, source)
    with pytest.raises(RunFailedError, match="exit code 3") as caught:
        run.wait_for_completion()
    assert caught.value.details["error"]["error"]["code"] == "run.exit"
    run.wait_for_completion(show_output=True, raise_on_error=False)
    assert '"message": "exit code 3"' in capsys.readouterr().out


def test_canceled_run_does_not_raise(
    platform: Platform, workspace: Workspace, source: Path
) -> None:
    run = submit(workspace, source)
    run.cancel()
    assert run.wait_for_completion()["status"] == "Canceled"
    run.cancel()  # nothing to do
    assert len(platform.calls("POST", f"/runs/{run.id}/cancel")) == 1


def test_phases_are_told_as_they_pass(
    platform: Platform, workspace: Workspace, source: Path
) -> None:
    platform.on_submit = platform.complete
    out = io.StringIO()
    submit(workspace, source).wait_for_completion(on_event=PhasePrinter(out))
    assert out.getvalue().splitlines() == [
        "phase preparing: 1.0 s",
        "phase scaling: 0.0 s",
        "phase starting: 0.5 s",
        "phase running: 2.0 s",
        "phase post-processing: 0.1 s",
    ]


def test_metrics_over_pages(platform: Platform, workspace: Workspace) -> None:
    run = platform.add_run()
    platform.runs[run].metrics = [
        MetricPoint(name="loss", kind="scalar", value=i, time=NOW, sequence=i + 1) for i in range(5)
    ]
    child = platform.add_run(parent_run_id=run)
    found = Run.get(workspace, run)
    assert found.get_metrics() == {"loss": [0, 1, 2, 3, 4]}
    assert found.get_metrics("absent") == {}
    assert found.get_metrics(recursive=True)[child] == {}


def test_files(platform: Platform, workspace: Workspace, tmp_path: Path) -> None:
    run = platform.add_run()
    files = {
        "outputs/model/m.keras": b"weights",
        "outputs/a.txt": b"a",
        "user_logs/std_log.txt": b"l",
    }
    platform.runs[run].files = {name: platform.blob(data) for name, data in files.items()}
    found = Run.get(workspace, run)
    assert found.get_file_names() == list(files)
    found.download_file("./outputs/a.txt")
    assert Path("a.txt").read_bytes() == b"a"
    found.download_file("outputs/a.txt", str(tmp_path / "b.txt"))
    assert (tmp_path / "b.txt").read_bytes() == b"a"
    found.download_files("outputs", str(tmp_path / "d"))
    assert (tmp_path / "d/outputs/model/m.keras").read_bytes() == b"weights"
    found.download_files("outputs/model", str(tmp_path / "e"), append_prefix=False)
    assert [each.name for each in (tmp_path / "e").iterdir()] == ["m.keras"]
    with pytest.raises(NotFoundError, match=r"no file 'outputs/b'. It has: outputs/model/m"):
        found.download_file("outputs/b")


def test_corrupt_content_never_gets_its_name(
    platform: Platform, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk.downloads.pause_before", lambda attempt: 0.0)
    run = platform.add_run()
    digest = platform.blob(b"right")
    platform.runs[run].files = {"a": digest}
    platform.blobs[digest] = b"wrong"
    with pytest.raises(Exception, match="not what the platform promised"):
        Run.get(workspace, run).download_file("a", str(tmp_path / "a"))
    assert not list(tmp_path.glob("*a*"))


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "link/evil"])
def test_names_of_the_server_stay_inside(
    platform: Platform, workspace: Workspace, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "link").symlink_to(tmp_path)
    run = platform.add_run()
    platform.runs[run].files = {name: platform.blob(b"x")}
    if name.startswith("/"):
        Run.get(workspace, run).download_files(output_directory=str(target))
        assert (target / "etc/evil").exists()
        return
    with pytest.raises(Exception, match="evil"):
        Run.get(workspace, run).download_files(output_directory=str(target))
    assert not (tmp_path / "evil").exists()


def test_tags_and_properties(platform: Platform, workspace: Workspace) -> None:
    run = Run.get(workspace, platform.add_run())
    run.tag("Rank", 1)
    run.tag("seen")
    run.add_properties({"p": 2})
    assert run.get_tags() == {"Rank": "1", "seen": None}
    assert run.get_properties() == {"p": "2"}
    with pytest.raises(ConflictError):
        run.add_properties({"p": 3})


def test_get_runs_and_texts(platform: Platform, workspace: Workspace) -> None:
    first, second = platform.add_run(), platform.add_run()
    platform.runs[first].view = platform.runs[first].view.model_copy(
        update={"tags": {"a": "b", "c": None}}
    )
    experiment = Experiment(workspace, "e")
    assert [run.id for run in experiment.get_runs()] == [second, first]
    assert [run.id for run in experiment.get_runs(tags={"a": "b", "c": None})] == [first]
    assert "tag=a%3Db" in platform.queries[-1]
    assert list(experiment.get_runs(tags="c", properties="p")) == []
    run = Run(Experiment(workspace, "e"), first)
    assert (
        str(run)
        == f"Run(Experiment: e,\nId: {first},\nType: azureml.scriptrun,\nStatus: NotStarted)"
    )
    assert first in run._repr_html_()


def test_context_outside_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.get_context()
    assert run.id.startswith("OfflineRun_")
    run.log("accuracy", 0.9)
    assert "Attempted to log scalar metric accuracy:\n0.9" in capsys.readouterr().out
