"""Runs that a client drives, and scripts that use the platform from inside: through every service."""

import json
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from stack import Stack, request

from stellwerk import (
    ConflictError,
    Environment,
    Experiment,
    Run,
    ScriptRunConfig,
    UserError,
    Workspace,
)

INSIDE = """
import json, sys
from azureml.core import Dataset, Environment, Experiment, Model, Run, ScriptRunConfig
from azureml.core.run import _OfflineRun, _SubmittedRun

run = Run.get_context()
assert type(run) is _SubmittedRun and isinstance(run, Run) and run is Run.get_context()
run.log("loss", 0.5)
run.tag("stage", 1)
open("outputs/model.txt", "w").write("weights")
ws = run.experiment.workspace
model = run.register_model("inside", "./outputs/model.txt")
path = Model.get_model_path("inside")
parent = run.parent
with run.child_run("fold") as child:
    child.log("fold loss", 0.25)
made = run.create_children(tag_key="alpha", tag_values=[0.1, 0.2])
for each in made:
    each.log("alpha", float(each.tags["alpha"]))
    each.complete()
try:
    Experiment(ws, "other").start_logging(snapshot_directory=None).cancel()
    other = "a child"
except Exception as error:
    other = str(error)
run.log_accuracy_table("table", {"schema_type": "accuracy_table", "data": {}})
Dataset.File.upload_directory("outputs", (ws.get_default_datastore(), "made-inside")).register(
    ws, "made-inside"
)
here = Environment("here")
here.python.user_managed_dependencies, here.python.interpreter_path = True, sys.executable
leaf = run.submit_child(ScriptRunConfig(".", "leaf.py", environment=here))
leaf.wait_for_completion()
left = run.child_run("left open")
left.log("half", 1)
found = {
    "experiment": run.experiment.name, "workspace": ws.name, "model": [model.name, model.version],
    "secret": run.get_secret("in-run"), "text": open(path).read(), "data": sorted(Dataset.get_by_name(ws, "made-inside").to_path()), "leaf": leaf.get_metrics(),
    "parent": parent and parent.id, "children": [each.id for each in run.get_children()],
    "other": other,
}
json.dump(found, open("outputs/found.json", "w"))
"""

LEAF = """
from azureml.core import Run
run = Run.get_context()
run.log("parent", run.parent is not None)
"""


@pytest.fixture(scope="module")
def workspace(stack: Stack) -> Iterator[Workspace]:
    workspace = Workspace(stack.client_file["url"], stack.client_file["token"])
    yield workspace
    workspace.client.close()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fresh folder, as a notebook has it."""
    monkeypatch.chdir(tmp_path)
    Path("prepare.py").write_text("print('prepare')\n")
    return tmp_path


def on_this_python() -> Environment:
    environment = Environment("here")
    environment.python.user_managed_dependencies = True
    environment.python.interpreter_path = sys.executable
    return environment


def test_a_notebook_from_the_first_cell_to_the_last(workspace: Workspace, here: Path) -> None:
    experiment = Experiment(workspace, "notebook")
    run = experiment.start_logging(display_name="first try")
    assert (run.status, run.type, run.display_name) == ("Running", None, "first try")
    for step in range(5):
        run.log("loss", 1 / (step + 1), step=step)
    run.log("Final test loss ", 0.2)
    run.log_list("list", iter([1, 2, 3]))
    run.log_row("row", x=1, y=2.5)
    run.log_row("row", x=2, y=float("inf"))
    run.log_table("table", {"a": [1, 2], "b": ["p", "q"]})
    run.log_confusion_matrix("matrix", {"schema_type": "confusion_matrix", "data": {"m": [[1]]}})
    found = run.get_metrics()
    assert found["loss"] == [1 / (step + 1) for step in range(5)]
    assert found["Final test loss "] == 0.2
    assert found["list"] == [1, 2, 3]
    assert found["row"] == {"x": [1, 2], "y": [2.5, float("inf")]}
    assert found["table"] == {"a": [1, 2], "b": ["p", "q"]}
    assert found["matrix"].startswith(f"aml://artifactId/ExperimentRun/dcid.{run.id}/matrix_")
    with pytest.raises(UserError, match="use log_list"):
        run.log("loss", [1, 2])
    Path("logs").mkdir()
    Path("logs/train.log").write_text("first line\n")
    assert next(run.logs(path="logs/train.log", follow_it=True)) == b"first line\n"
    with Path("logs/train.log").open("a") as more:
        more.write("last line\n")
    Path("outputs/model.pkl").write_text("weights")
    run.upload_file("outputs/early.pkl", "outputs/model.pkl")
    with pytest.raises(ConflictError, match="already"):
        run.upload_file("outputs/early.pkl", "prepare.py")
    with pytest.raises(ConflictError, match="already"):
        run.upload_file("outputs/early.pkl/below", "prepare.py")
    with pytest.raises(ConflictError, match="already"):
        run.upload_file("outputs", "prepare.py")
    with pytest.raises(UserError, match="at most 255"):
        run.log("x" * 256, 1)
    with pytest.raises(TypeError, match="2 names"):
        run.upload_files(["a", "b"], ["prepare.py"])
    early = run.register_model("notebook", "outputs/early.pkl")
    run.complete()
    run.complete()
    assert run.status == "Completed"
    with pytest.raises(ConflictError, match="sealed"):
        run.upload_file("late", "prepare.py")
    run.log("after", 1)
    run.flush()
    again = Run(experiment, run.id)
    assert again.get_metrics("after") == {"after": 1}
    names = again.get_file_names()
    assert [name for name in names if not name.startswith("matrix_")] == [
        "logs/train.log", "outputs/early.pkl", "outputs/model.pkl",
    ]  # fmt: skip
    assert b"".join(again.logs(path="logs/train.log")) == b"first line\nlast line\n"
    assert list(again.get_details()["logFiles"]) == ["logs/train.log"]
    again.download_file("outputs/model.pkl", "fetched.pkl")
    assert Path("fetched.pkl").read_text() == "weights"
    assert again.register_model("notebook", "outputs/model.pkl").version == early.version + 1
    with zipfile.ZipFile(again.restore_snapshot(path="source")) as archive:
        assert archive.namelist() == ["prepare.py"]


def test_labels_children_and_ends(workspace: Workspace, here: Path) -> None:
    experiment = Experiment(workspace, "tree")
    run = experiment.start_logging(snapshot_directory=None, outputs=False)
    run.tag("Rank", 1)
    run.add_properties({"author": "me"})
    with pytest.raises(ConflictError, match="never change"):
        run.add_properties({"author": "you"})
    assert (run.get_tags(), run.get_properties()) == ({"Rank": "1"}, {"author": "me"})
    children = run.create_children(count=3)
    assert [child.tags["azureml.batch_child_number"] for child in children] == ["0", "1", "2"]
    for number, child in enumerate(children):
        child.log("n", number)
        child.complete()
    with children[0].child_run("leaf") as leaf:
        leaf.log("deep", 7)
    with pytest.raises(ZeroDivisionError), run.child_run("broken") as broken:
        raise ZeroDivisionError("no")
    assert broken.status == "Failed"
    assert broken.get_details()["error"]["error"]["message"] == "ZeroDivisionError: no"
    assert broken.parent is not None
    assert broken.parent.id == run.id
    stopped = run.child_run("stopped")
    stopped.cancel()
    assert stopped.wait_for_completion()["status"] == "Canceled"
    with pytest.raises(UserError, match="100"):
        run.create_children(count=101)
    run.complete()
    below = {child.id for child in run.get_children()}
    assert below == {child.id for child in (*children, broken, stopped)}
    assert {child.id for child in run.get_children(recursive=True)} == below | {leaf.id}
    assert [child.id for child in run.get_children(status="Failed")] == [broken.id]
    assert [r.id for r in run.get_children(tags={"azureml.batch_child_number": "1"})] == [
        children[1].id
    ]
    assert run.get_metrics(recursive=True)[leaf.id] == {"deep": 7}
    assert [r.id for r in experiment.get_runs(properties={"author": "me"})] == [run.id]


def test_a_script_uses_the_platform_and_nothing_beyond_its_own(
    stack: Stack, workspace: Workspace, here: Path, script_folder: Path
) -> None:
    workspace.get_default_keyvault().set_secret("in-run", "open sesame")
    (script_folder / "train.py").write_text(INSIDE)
    (script_folder / "leaf.py").write_text(LEAF)
    config = ScriptRunConfig(str(script_folder), "train.py", environment=on_this_python())
    outer = Experiment(workspace, "inside").start_logging(snapshot_directory=None, outputs=False)
    run = outer.submit_child(config)
    details = run.wait_for_completion(raise_on_error=False)
    log = b"".join(run.logs()).decode()
    assert details["status"] == "Completed", log
    run.download_file("outputs/found.json", "found.json")
    found: dict[str, Any] = json.loads(Path("found.json").read_text())
    children = [child.id for child in run.get_children()]
    assert len(children) == 6
    assert found == {
        "experiment": "inside", "workspace": "default", "model": ["inside", 1],
        "data": ["/model.txt"], "leaf": {"parent": outer.id != run.id},
        "secret": "open sesame", "text": "weights", "parent": outer.id, "children": children,
        "other": "a child",
    }  # fmt: skip
    metrics = run.get_metrics(recursive=True)
    table = metrics[run.id].pop("table")
    assert table.rpartition("/")[2] in run.get_file_names()
    assert metrics[run.id] == {"loss": 0.5}
    assert sorted(m["alpha"] for m in metrics.values() if "alpha" in m) == [0.1, 0.2]
    assert run.get_tags()["stage"] == "1"
    token = stack.client_file["token"]
    for path in (stack.home / "logs").glob("*.log"):
        text = path.read_text(errors="replace")
        assert "swr1." not in text, path
        assert token not in text, path
    left = next(child for child in run.get_children() if child.name == "left open")
    assert left.wait_for_completion()["status"] == "Completed"
    assert left.get_metrics() == {"half": 1}
    outer.complete()


def test_a_submitted_run_is_failed_from_outside(workspace: Workspace, script_folder: Path) -> None:
    (script_folder / "wait.py").write_text(
        "import time\nprint('up', flush=True)\ntime.sleep(600)\n"
    )
    config = ScriptRunConfig(str(script_folder), "wait.py", environment=on_this_python())
    run = Experiment(workspace, "failed").submit(config)
    run.fail("bad data", error_code="mine")
    details = run.wait_for_completion(raise_on_error=False)
    assert details["status"] == "Failed"
    assert details["error"]["error"] == {"code": "mine", "message": "bad data"}


def test_nothing_logged_is_lost_doubled_or_out_of_order_whatever_is_killed(
    stack: Stack, workspace: Workspace, here: Path
) -> None:
    run = Experiment(workspace, "killed").start_logging(snapshot_directory=None, outputs=False)
    victims = iter(("gateway", "history", "scheduler"))
    for number in range(6000):
        run.log("n", number)
        if number % 2000 == 1000:
            stack.kill(next(victims))
            run.flush()
    run.complete()
    assert run.status == "Completed"
    assert run.get_metrics()["n"] == list(range(6000))
    ends = [event.type for event in run.events() if event.type == "RunCompleted"]
    assert ends == ["RunCompleted"]


def test_records_by_rest_are_checked_and_idempotent(stack: Stack) -> None:
    with stack.http() as http:
        body = {"experiment": "rest", "spec": {"kind": "interactive"}}
        view = request("POST", http, "/runs", json=body).json()
        run = f"/runs/{view['run_id']}"
        assert view["status"] == "Running"

        def send(first: int, *records: dict[str, Any], writer: str = "w") -> Any:
            batch = {"writer": writer, "first": first, "records": list(records)}
            return request("POST", http, f"{run}/records", json=batch)

        loss = {"k": "metric", "n": "loss", "v": 0.5}
        assert send(0, loss, {**loss, "v": 0.25}).json() == {"next": 2, "seen": True}
        assert send(1, {**loss, "v": 0.25}, {**loss, "v": 0.125}).json()["next"] == 3
        assert send(0, {**loss, "v": 9}, writer="other").status_code == 200
        page = request("GET", http, f"{run}/series").json()
        assert page["series"][0]["values"] == [0.5, 0.25, 0.125, 9]
        for record, code, field in (
            ({**loss, "v": [1]}, "record.value", "records[0].v"),
            (
                {"k": "file", "n": "../x", "size": 1, "sha256": "a" * 64},
                "file.path",
                "records[0].n",
            ),
            ({"k": "file", "n": "x", "size": 1, "sha256": "a" * 64}, "blob.missing", "records"),
            ({"k": "metric", "v": 1}, "field.required", "records[0].n"),
        ):
            refused = send(3, record)
            assert refused.status_code == 422, refused.text
            assert (refused.json()["code"], refused.json()["field"]) == (code, field)
        piece = {"path": "logs/a", "offset": 0, "data": "YWJj"}
        for _ in range(2):
            assert request("POST", http, f"{run}/logs", json=piece).json() == {"next": 3}
        for change, field in (
            ({"path": "logs/../x"}, "path"), ({"path": "outputs/x"}, "path"), ({"data": "%"}, "data"),
            ({"data": "QUFB" * 100_000}, "data"), ({"data": ""}, "data"), ({"offset": -1}, "offset"),
        ):  # fmt: skip
            refused = request("POST", http, f"{run}/logs", json={**piece, **change})
            assert (refused.status_code, refused.json()["field"]) == (422, field), refused.text
        end = {"status": "Failed", "code": "user.error", "message": "why"}
        assert request("POST", http, f"{run}/end", json=end).json()["status"] == "Failed"
        assert request("POST", http, f"{run}/end", json=end).status_code == 200
        other = request("POST", http, f"{run}/end", json={"status": "Completed"})
        assert (other.status_code, other.json()["code"]) == (409, "run.already_terminal")
        late = request("POST", http, f"{run}/logs", json={**piece, "offset": 3})
        assert (late.status_code, late.json()["code"]) == (409, "run.ended")
        assert request("GET", http, f"{run}/logs/logs/a").text == "abc"
        events = request("GET", http, f"{run}/events").text
        assert events.count('"type":"RunFailed"') == 1
