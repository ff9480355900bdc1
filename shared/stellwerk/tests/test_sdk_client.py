"""Retries, reconnects and errors of the connection."""

import socket
from pathlib import Path

import pytest
from scripted_platform import Fault, Platform

from stellwerk import (
    AuthenticationError,
    ConflictError,
    Experiment,
    Model,
    NotFoundError,
    Run,
    ScriptRunConfig,
    ServiceUnavailableError,
    UserError,
    Workspace,
)
from stellwerk.api import RunRequest, RunView
from stellwerk.downloads import RemoteFile, download
from stellwerk.localfiles import chunks, hashed, local_file
from stellwerk.runspec import InlineSource, RunSpec
from stellwerk.uploads import upload


def request() -> RunRequest:
    source = InlineSource(inline={"a.py": "1"})
    return RunRequest(experiment="e", spec=RunSpec(source=source, script="a.py"))


@pytest.mark.parametrize(
    "fault", [Fault("/runs", 503, 2, "0.2"), Fault("/runs", times=2, after_bytes=20)]
)
def test_submission_is_repeated_with_the_same_key(
    platform: Platform, workspace: Workspace, fault: Fault
) -> None:
    workspace.get_details()
    platform.faults.append(fault)
    workspace.client.call("POST", "/runs", RunView, body=request(), key="k1")
    keys = [headers["idempotency-key"] for headers in platform.calls("POST", "/runs")]
    assert keys == ["k1"] * 3
    assert len(platform.runs) == 1


def test_submit_survives_a_restart(
    platform: Platform, workspace: Workspace, tmp_path: Path
) -> None:
    (tmp_path / "a.py").touch()
    (tmp_path / ".amlignore").write_text("cwd\nhome\n")
    platform.faults += [
        Fault("/blobs", 503),
        Fault("/snapshots", 503),
        Fault("/runs", after_bytes=1),
    ]
    run = Experiment(workspace, "e").submit(ScriptRunConfig(str(tmp_path), "a.py"))
    assert list(platform.runs) == [run.id]


def test_patience_ends(platform: Platform, workspace: Workspace) -> None:
    workspace.client.patience_s = 1.5
    platform.faults.append(Fault("/runs/r", 503, 99))
    with pytest.raises(ServiceUnavailableError, match="as scripted"):
        Run.get(workspace, "r")
    assert len(platform.calls("GET", "/runs/r")) >= 2


def test_retry_after_is_honoured(platform: Platform, workspace: Workspace) -> None:
    workspace.client.patience_s = 1.0
    platform.faults.append(Fault("/info", 503, 99, retry_after="5"))
    with pytest.raises(ServiceUnavailableError) as caught:
        workspace.get_details()
    assert caught.value.retry_after_s == 5
    assert len(platform.calls("GET", "/info")) == 1  # asking sooner would be no use


def test_a_model_whose_answer_was_lost_is_asked_for_again_and_registered_once(
    platform: Platform, workspace: Workspace
) -> None:
    run = platform.add_run()
    platform.runs[run].files = {"outputs/m": platform.blob(b"m")}
    platform.faults.append(Fault("/models", after_bytes=1))
    assert Run.get(workspace, run).register_model("m", "outputs/m").version == 1
    first, second = (call["idempotency-key"] for call in platform.calls("POST", "/models"))
    assert first == second
    assert [view.version for view, _ in platform.models] == [1]


def test_errors_by_kind(platform: Platform, workspace: Workspace) -> None:
    with pytest.raises(NotFoundError) as missing:
        Model(workspace, "nope")
    assert missing.value.code == "model.not_found"
    platform.faults += [Fault("/info", 409), Fault("/info", 422), Fault("/info", 500)]
    with pytest.raises(ConflictError):
        workspace.get_details()
    with pytest.raises(UserError):
        workspace.get_details()
    with pytest.raises(Exception, match="The platform failed: as scripted"):
        workspace.get_details()
    stranger = Workspace(platform.url, "wrong")
    with pytest.raises(AuthenticationError):
        stranger.get_details()
    stranger.client.close()


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stellwerk.client._FIRST_CONTACT_S", 0.0)
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        workspace = Workspace(f"http://127.0.0.1:{bound.getsockname()[1]}", "t")
        with pytest.raises(ServiceUnavailableError, match="stellwerk up"):
            workspace.get_details()


def test_upload_is_tried_again(
    platform: Platform, workspace: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "big"
    path.write_bytes(b"x" * 3_000_000)
    (tmp_path / "empty").touch()
    files = hashed([local_file(path, "big"), local_file(tmp_path / "empty", "empty")])
    platform.faults.append(Fault(f"/store/{files[0].entry.sha256}", 503, 2))
    assert upload(workspace.client, files, show=True) == 2
    assert {len(each) for each in platform.blobs.values()} == {3_000_000, 0}
    assert upload(workspace.client, files, show=True) == 0
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "done, 2/2 files, 3.0 MB/3.0 MB" in shown.err


def test_upload_of_a_file_that_changes(
    platform: Platform, workspace: Workspace, tmp_path: Path
) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"before")
    files = hashed([local_file(path, "f")])
    path.write_bytes(b"after!")
    with pytest.raises(UserError, match="was changed while"):
        upload(workspace.client, files)
    assert platform.blobs == {}
    assert list(chunks(path, hashed([local_file(path, "f")])[0].entry.sha256)) == [b"after!"]


def test_download_is_tried_again(platform: Platform, workspace: Workspace, tmp_path: Path) -> None:
    run = platform.add_run()
    data = b"y" * 500_000
    digest = platform.blob(data)
    platform.runs[run].files = {"a": digest}
    platform.faults.append(Fault(f"/store/{digest}", times=2, after_bytes=1000))
    Run.get(workspace, run).download_file("a", str(tmp_path / "a"))
    assert (tmp_path / "a").read_bytes() == data
    with pytest.raises(ConflictError, match="exists already"):
        download(workspace.client, [RemoteFile("/x", tmp_path / "a")], overwrite=False)
