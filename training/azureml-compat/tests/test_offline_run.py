"""The run outside a run: exactly what the original printed, and nothing it lacked."""

import re

import pytest

from azureml.core import Run
from azureml.core.run import _OfflineRun
from azureml.exceptions import RunEnvironmentException

CELL = {"schema_type": "x"}


def test_what_it_prints(capsys: pytest.CaptureFixture[str]) -> None:
    run = Run.get_context()
    assert type(run) is _OfflineRun
    assert re.fullmatch(r"OfflineRun_[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", run.id)
    run.log("a", 1)
    run.log_list("a", [1])
    run.log_row("a", x=1)
    run.log_table("a", {"x": [1]})
    run.log_image("a", path="p.png")
    run.log_residuals("a", CELL)
    run.log_predictions("a", CELL)
    run.log_accuracy_table("a", CELL)
    run.log_confusion_matrix("a", CELL)
    run.tag("t", 1)
    run.set_tags({"t": 2})
    run.add_properties({"p": 3})
    run.upload_file("f", "here")
    run.upload_folder("g", "there")
    run.upload_files(["f"], ["here"], timeout_seconds=5)
    with run.child_run("x") as child:
        assert type(child) is _OfflineRun
    kinds = (
        ("scalar", "1"), ("list", "[1]"), ("row", "{'x': 1}"), ("table", "{'x': [1]}"), ("image", "p.png"),
        ("residual", CELL), ("predictions", CELL), ("accuracy_table", CELL), ("confusion_matrix", CELL),
    )  # fmt: skip
    assert capsys.readouterr().out == "".join(
        f"Attempted to log {kind} metric a:\n{value}\n" for kind, value in kinds
    ) + (
        "Attempted to add tag t with value 1\n"
        "Attempted to set tags {'t': 2}\n"
        "Attempted to add properties {'p': 3}\n"
        "Attempted to track file f at here\n"
        "Attempted to track folder g at there\n"
        "Attempted to track files ['f'] at ['here'] with timeout 5\n"
        f"[START] Run {child.id} context\n"
        f"[STOP] Run {child.id} context\n"
    )


def test_what_it_lacks() -> None:
    run = Run.get_context()
    for name in ("experiment", "input_datasets", "parent", "get_metrics"):
        with pytest.raises(AttributeError):
            getattr(run, name)
    with pytest.raises(TypeError):
        run.log("a", 1, step=1)  # type: ignore[call-arg]
    with pytest.raises(RunEnvironmentException):
        Run.get_context(allow_offline=False)
