"""Native errors are v1 exceptions once azureml.core is imported."""

import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import azureml.core
import stellwerk_agent
from azureml import exceptions as v1
from azureml._common.exceptions import UserErrorException as SecondPath
from azureml.core.compute_target import ComputeTargetException as ThirdPath
from stellwerk import errors as native


@pytest.mark.parametrize(
    ("raised", "caught"),
    [
        (native.UserError("no"), v1.UserErrorException),
        (native.NotFoundError("no", field="name"), v1.UserErrorException),
        (native.AuthenticationError("no"), v1.AuthenticationException),
        (native.ServiceUnavailableError("no", retry_after_s=2), v1.ServiceException),
        (native.ComputeTargetException("no"), v1.ComputeTargetException),
        (native.RunFailedError("no", {"runId": "a"}), v1.ActivityFailedException),
        (native.StreamingInterruptedError("no"), v1.ExperimentExecutionException),
        (native.StellwerkError("no"), v1.AzureMLException),
        (native.UserError("no", code="source.entrypoint"), v1.ExperimentExecutionException),
        (native.UserError("no", code="source.too_large"), v1.SnapshotException),
        (native.NotFoundError("no", code="compute.not_found"), v1.ComputeTargetException),
        (native.NotFoundError("no", code="model.path_not_found"), v1.ModelPathNotFoundException),
        (stellwerk_agent.errors.UserError("no"), v1.UserErrorException),
        (stellwerk_agent.errors.RunEnvironmentError("no"), v1.RunEnvironmentException),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_an_error_is_both(raised: Exception, caught: type[v1.AzureMLException]) -> None:
    assert isinstance(raised, caught)
    assert type(raised).__name__ == caught.__name__
    assert raised.message == "no"
    assert raised.inner_exception is None
    assert str(raised).startswith(f"{caught.__name__}:\n\tMessage: no\n\tInnerException None\n")


def test_what_the_native_error_knew_is_kept() -> None:
    error = native.ConflictError("taken", code="name.taken", field="name")
    assert isinstance(error, native.UserError)
    assert (error.code, error.field) == ("name.taken", "name")


def test_an_error_comes_back_from_another_process() -> None:
    for error in (
        native.NotFoundError("no", code="a.b", field="name"),
        stellwerk_agent.errors.UserError("no"),
    ):
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is type(error)
        assert (vars(again), str(again)) == (vars(error), str(error))


def test_one_class_under_every_import_path() -> None:
    assert SecondPath is v1.UserErrorException
    assert ThirdPath is v1.ComputeTargetException


def test_without_azureml_the_native_errors_are_only_themselves() -> None:
    code = "from stellwerk.errors import UserError; print(type(UserError('x')).__mro__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "azureml" not in done.stdout


def test_every_name_of_core_is_there() -> None:
    for name in azureml.core.__all__:
        assert hasattr(azureml.core, name), name


LATER, NEVER = "comes later.*submit one run for each set", "use azureml.core.ScriptRunConfig"


@pytest.mark.parametrize(
    ("module", "name", "says"),
    [
        ("train.hyperdrive", "HyperDriveConfig", LATER),
        ("train.hyperdrive.runconfig", "HyperDriveConfig", LATER),
        ("train.hyperdrive.sampling", "RandomParameterSampling", LATER),
        ("train.hyperdrive.policy", "BanditPolicy", LATER),
        ("train.hyperdrive.run", "PrimaryMetricGoal", LATER),
        ("train.hyperdrive.parameter_expressions", "choice", LATER),
        ("train.estimator", "Estimator", NEVER),
        ("train.dnn", "TensorFlow", NEVER),
        ("train.sklearn", "SKLearn", NEVER),
        ("core.webservice", "AciWebservice", "not deploy models yet"),
        ("core.model", "InferenceConfig", "not deploy models yet"),
    ],
)
def test_what_is_not_there_is_imported_and_says_so_when_used(
    module: str, name: str, says: str
) -> None:
    refused = getattr(importlib.import_module(f"azureml.{module}"), name)
    for use in (lambda: refused(source_directory="."), lambda: refused.MAXIMIZE):
        with pytest.raises(v1.AzureMLException, match=f"(?is){name}.*{says}"):
            use()


def test_import_is_cheap() -> None:
    code = "import azureml.core, sys, resource as r; print(r.getrusage(r.RUSAGE_SELF).ru_utime, 'pydantic' in sys.modules)"
    bare = "import resource as r; print(r.getrusage(r.RUSAGE_SELF).ru_utime, False)"
    seconds, loaded = {}, ""
    for name, text in (("with", code), ("without", bare)):
        done = subprocess.run(
            [sys.executable, "-c", text], capture_output=True, text=True, check=True
        )
        cpu, loaded = done.stdout.split()
        assert loaded == "False"
        seconds[name] = float(cpu)
    assert seconds["with"] - seconds["without"] <= 0.4, seconds


PLACES = (
    "/usr/bin/python3.*[0-9]",
    "/usr/local/bin/python3.*[0-9]",
    "~/.pyenv/versions/3.*/bin/python3",
)
OTHERS = sorted(str(f) for p in PLACES for f in Path("/").glob(str(Path(p).expanduser())[1:]))
IN_RUN = """
import azureml.core.environment
from azureml.core import Dataset, Run, Workspace
from azureml.core.compute import ComputeTargetException
from azureml.core.model import Model
from azureml.core.run import _OfflineRun
from azureml.data.datapath import DataPath
from azureml.exceptions import ComputeTargetException as same, UserErrorException
assert ComputeTargetException is same and not isinstance(1, Workspace)
run = Run.get_context()
assert type(run) is not _OfflineRun, run
try:
    run.log("loss", [1])
except UserErrorException as error:
    print(error.message)
try:
    run.upload_file("model", "nothing.here")
except UserErrorException as error:
    print(error.message)
for use in (
    lambda: Dataset.get_by_name(None, "x"), lambda: Model.get_model_path("x"), lambda: DataPath(None, "x"),
    lambda: run.experiment.workspace, lambda: run.parent, lambda: run.get_metrics(),
):
    try:
        use()
    except Exception as error:
        print(str(getattr(error, "message", error)).partition(" and this ")[0])
"""
WORDS = (
    "metric 'loss': one value, not a list; use log_list\n"
    "file 'model': there is no file at 'nothing.here'\n"
    "Dataset.get_by_name: this asks the platform,\n"
    "Model.get_model_path: this asks the platform,\n"
    "DataPath: this asks the platform,\n"
    "run.experiment.workspace: this asks the platform,\n"
    "run.parent: this asks the platform,\n"
    "run.get_metrics: this asks the platform,\n"
)


@pytest.mark.parametrize("python", [sys.executable, *OTHERS])
def test_a_script_logs_in_every_python_and_without_any_package(python: str, tmp_path: Path) -> None:
    for name in ("stellwerk_agent", "stellwerk", "azureml"):
        spec = importlib.util.find_spec(name)
        (tmp_path / name).symlink_to(Path(str(spec and spec.origin)).parent)
    run = {"STELLWERK_RUN_ID": "r", "STELLWERK_RUN_SOCKET": str(tmp_path / "run.sock")}
    done = subprocess.run(
        [python, "-S", "-c", IN_RUN], env={"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1", **run},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout == WORDS, done.stderr
