"""What a run refuses raises the v1 exception of that meaning and says what was wrong."""

from collections.abc import Callable
from pathlib import Path

import pytest

from azureml.core import Experiment, Run, ScriptRunConfig, Workspace
from azureml.exceptions import (
    AzureMLException,
    ExperimentExecutionException,
    ModelPathNotFoundException,
    SnapshotException,
    UserErrorException,
)

Refusal = tuple[Callable[[], object], type[Exception], str]


def check(refusals: list[Refusal]) -> None:
    for call, raised, says in refusals:
        with pytest.raises(raised, match=says) as caught:
            call()
        assert type(caught.value).__name__ == raised.__name__


@pytest.fixture
def run(ws: Workspace) -> Run:
    return Experiment(ws, "refusals").start_logging(snapshot_directory=None, outputs=False)


def test_values_files_and_properties(ws: Workspace, run: Run) -> None:
    Path("a.txt").write_text("a")
    run.upload_file("kept/a.txt", "a.txt")
    run.add_properties({"author": "me"})
    check(
        [
            (lambda: run.log("loss", [1, 2]), UserErrorException, "loss.*log_list"),
            (lambda: run.log("loss", range(3)), UserErrorException, "loss.*log_list"),
            (lambda: run.log("loss", (i for i in "ab")), UserErrorException, "loss.*log_list"),
            (lambda: run.log_image("i"), UserErrorException, "either path or plot"),
            (lambda: run.log_image("i", "p", "q"), UserErrorException, "either path or plot"),
            (lambda: run.upload_file("kept/a.txt", "a.txt"), UserErrorException, "kept/a.txt"),
            (lambda: run.upload_file("b", "none.txt"), UserErrorException, "none.txt"),
            (lambda: run.upload_files(["b", "c"], ["a.txt"]), TypeError, "2 names for 1 paths"),
            (lambda: run.upload_folder("b", "none"), UserErrorException, "none"),
            (lambda: run.download_file("zz"), UserErrorException, "'zz'.*kept/a.txt"),
            (lambda: run.add_properties({"author": "you"}), UserErrorException, "author.*'me'"),
            (lambda: run.create_children(101), UserErrorException, "got 101; 1 to 100"),
            (lambda: run.register_model("m", "outputs/m"), ModelPathNotFoundException, "kept/a"),
            (lambda: run.register_model("-m", "kept"), UserErrorException, "name: got '-m'"),
            (lambda: Run(run.experiment, "none"), UserErrorException, "no run none"),
            (lambda: Run.get(ws, "0" * 32), UserErrorException, "no run 0000"),
        ]
    )
    assert issubclass(UserErrorException, AzureMLException)
    assert run.get_properties()["author"] == "me"
    run.complete()
    check(
        [
            (lambda: run.upload_file("late", "a.txt"), UserErrorException, "sealed"),
            (run.fail, UserErrorException, "Completed already"),
        ]
    )


def test_sources(ws: Workspace) -> None:
    experiment = Experiment(ws, "refusals")
    Path("many").mkdir()
    for number in range(2001):
        Path("many", str(number)).touch()
    many = ScriptRunConfig("many", command="true")
    check(
        [
            (
                lambda: experiment.submit(ScriptRunConfig(".", "none.py")),
                ExperimentExecutionException,
                "no file 'none.py'",
            ),
            (lambda: experiment.submit(many), SnapshotException, "2001 files; the limit .* 2000"),
            (lambda: experiment.submit("x.py"), UserErrorException, "give a ScriptRunConfig"),
        ]
    )
    with pytest.raises(AttributeError, match="did you mean 'compute_target'"):
        many.compute_targt = "local"
