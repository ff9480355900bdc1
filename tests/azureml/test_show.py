"""What v1 code shows: RunDetails, diagnostics, TensorBoard, addresses of pages."""

import sys
from pathlib import Path

import httpx2
import pytest
from stack import Stack, run_body, submit, wait_terminal

from azureml.core import Experiment, Workspace
from azureml.core.run import Run
from azureml.exceptions import UserErrorException
from azureml.telemetry import set_diagnostics_collection
from azureml.tensorboard import Tensorboard
from azureml.tensorboard.export import export_to_tensorboard
from azureml.widgets import RunDetails

SCRIPT = """
import os
from stellwerk_agent import Run
os.makedirs("logs", exist_ok=True)
open("logs/events.txt", "w").write("x")
run = Run.get_context()
for value in (1, 2, 3): run.log("loss", value)
run.log("<b>", 1)
"""


@pytest.fixture(scope="module")
def run_id(stack: Stack) -> str:
    with stack.http() as http:
        made = submit(http, run_body(SCRIPT, experiment="to show", display_name="<script>"))
        assert wait_terminal(http, made)["status"] == "Completed"
        return made


@pytest.fixture
def run(ws: Workspace, run_id: str) -> Run:
    return Run(Experiment(ws, "to show"), run_id)


def test_in_a_terminal_run_details_are_printed_once(
    run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    RunDetails(run).show()
    out = capsys.readouterr().out
    assert "Completed" in out
    assert "loss" in out
    assert run.get_portal_url() in out
    data = RunDetails(run_instance=run).get_widget_data()
    assert data["status"] == "Completed"
    assert data["run_metrics"]["loss"] == [1, 2, 3]
    with pytest.raises(UserErrorException, match="run_instance"):
        RunDetails("run")  # type: ignore[arg-type]


def test_markup_of_run_details_is_escaped(run: Run) -> None:
    shown = RunDetails(run)._html()
    assert "&lt;script&gt;" in shown
    assert "&lt;b&gt;" in shown
    assert "<script>" not in shown


def test_addresses_lead_to_pages(ws: Workspace, run: Run) -> None:
    for shown in (run, run.experiment, ws):
        address = shown.get_portal_url()
        answer = httpx2.get(address, trust_env=False)
        assert (answer.status_code, answer.headers["content-type"][:9]) == (200, "text/html")
        assert address in shown._repr_html_()
        assert "token" not in address


def test_diagnostics_are_accepted_and_sent_nowhere(capsys: pytest.CaptureFixture[str]) -> None:
    set_diagnostics_collection(send_diagnostics=True)
    assert "sends nothing" in capsys.readouterr().out


def test_without_tensorboard_both_ways_say_what_to_install(run: Run, tmp_path: Path) -> None:
    assert "tensorboard" not in sys.modules
    board = Tensorboard([run], local_root=str(tmp_path), port=0)
    with pytest.raises(UserErrorException, match="pip install tensorboard"):
        board.start()
    board.stop()
    with pytest.raises(UserErrorException, match="pip install tensorboard"):
        export_to_tensorboard(run, str(tmp_path))
    with pytest.raises(UserErrorException, match="runs"):
        Tensorboard([])
