"""Environments of all kinds through the whole platform, with v1's classes."""

import sys
from pathlib import Path

import pytest
from stack import Stack

from azureml.core import Environment, Experiment, Run, ScriptRunConfig, Workspace
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.runconfig import (
    DockerConfiguration,
    PyTorchConfiguration,
    RunConfiguration,
    TensorflowConfiguration,
)
from azureml.exceptions import ActivityFailedException, UserErrorException

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SCRIPT = """
import importlib.util, os, sys
from azureml.core import Run
run = Run.get_context()
run.log("python", sys.version.split()[0])
run.log("six", importlib.util.find_spec("six") is not None)
print(sys.executable, os.environ.get("MESSAGE"), *sys.argv[1:])
"""
RANKS = """
import json, os
from azureml.core import Run
names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODE_RANK")
print({name: os.environ.get(name) for name in names}, json.loads(os.environ.get("TF_CONFIG", "null")))
Run.get_context().log("rank", int(os.environ.get("RANK", -1)))
"""


@pytest.fixture
def source(tmp_path: Path) -> str:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/train.py").write_text(SCRIPT)
    (tmp_path / "source/ranks.py").write_text(RANKS)
    return str(tmp_path / "source")


def finished(run: Run) -> Run:
    run.wait_for_completion(show_output=False)
    return run


def log_of(run: Run, name: str = "user_logs/std_log.txt") -> str:
    run.download_file(name, "log.txt")
    return Path("log.txt").read_text()


def test_one_configuration_on_the_machines_python_and_in_a_built_one(
    ws: Workspace, source: str
) -> None:
    experiment = Experiment(ws, "environments")
    own = Environment("user-managed-env")
    own.python.user_managed_dependencies = True
    own.environment_variables["MESSAGE"] = "own"
    src = ScriptRunConfig(source, "train.py", ["--a", 1])
    src.run_config.environment = own
    first = finished(experiment.submit(src))
    assert " own --a 1" in log_of(first)
    assert first.get_environment().python.user_managed_dependencies

    # one with a path, as a virtual environment of the user's own
    own.python.interpreter_path = sys.executable
    assert log_of(finished(experiment.submit(src))).startswith(sys.executable)

    managed = Environment("system-managed-env")
    managed.python.conda_dependencies = CondaDependencies.create(pip_packages=["six==1.16.0"])
    src.run_config.environment = managed
    second = finished(experiment.submit(src))
    assert second.get_metrics()["six"] is True
    assert second.get_metrics()["python"] != ""
    environment = second.get_environment()
    assert (type(environment), environment.name) == (Environment, "system-managed-env")

    own.python.interpreter_path = "/nowhere/python"
    src.run_config.environment = own
    with pytest.raises(ActivityFailedException, match="interpreter /nowhere/python is not on this"):
        finished(experiment.submit(src))


def test_registered_listed_and_missing(ws: Workspace) -> None:
    env = Environment("listed-env")
    env.python.conda_dependencies.add_pip_package("six")
    first = env.register(ws)
    assert (first.name, first.version, env.register(workspace=ws).version) == (
        "listed-env",
        "1",
        "1",
    )
    env.docker.base_image = "acme/image:1"
    assert env.register(ws).version == "2"
    listed = Environment.list(ws)
    assert listed["listed-env"].docker.base_image == "acme/image:1"
    assert "azureml-defaults" in listed["AzureML-Minimal"].python.conda_dependencies.pip_packages
    with pytest.raises(
        Exception, match=r"^Error retrieving the environment definition\. Code: 404"
    ) as caught:
        Environment.get(ws, "not-there")
    assert type(caught.value) is Exception
    curated = Environment.get(ws, name="azureml-MINIMAL")
    assert curated.name == "AzureML-Minimal"


def test_what_was_exchanged_or_has_no_effect_is_said(ws: Workspace, source: str) -> None:
    env = Environment("old-env")
    env.python.conda_dependencies = CondaDependencies.create(
        python_version="3.6.2", pip_packages=["pillow==6.2.1"]
    )
    env.docker.base_image = "azureml/openmpi3.1.2-cuda10.0-cudnn7-ubuntu18.04"
    docker = DockerConfiguration(use_docker=True, shm_size="4g")
    src = ScriptRunConfig(source, "train.py", environment=env, docker_runtime_config=docker)
    run = finished(Experiment(ws, "environments").submit(src))
    details = run.get_details()
    said = "\n".join(each["message"] for each in details["warnings"])
    for words in ("python 3.6.2 -> 3.1", "pillow==6.2.1 -> pillow==", "image azureml/openmpi3.1.2"):
        assert words in said
    built = log_of(run, "azureml-logs/20_image_build_log.txt")
    assert "Warning: pillow==6.2.1 -> pillow==" in built
    definition = details["runDefinition"]
    assert definition["docker"] == {
        "useDocker": True,
        "sharedVolumes": True,
        "shmSize": "4g",
        "arguments": [],
    }
    assert definition["environment"]["docker"]["baseImage"] == env.docker.base_image

    env.strict = True
    src.run_config.environment = env
    with pytest.raises((ActivityFailedException, UserErrorException), match=r"pillow==6\.2\.1 -> "):
        finished(Experiment(ws, "environments").submit(src))


def test_distributed_runs(ws: Workspace, stack: Stack, source: str) -> None:
    here = Environment("here")
    here.python.user_managed_dependencies = True
    here.python.interpreter_path = sys.executable
    src = ScriptRunConfig(
        source,
        "ranks.py",
        environment=here,
        distributed_job_config=PyTorchConfiguration(process_count=2),
    )
    run = finished(Experiment(ws, "distributed").submit(src))
    assert sorted(run.get_metrics()["rank"]) == [0, 1]
    assert {"user_logs/std_log_process_0.txt", "user_logs/std_log_process_1.txt"} <= set(
        run.get_file_names()
    )
    assert "'RANK': '1', 'LOCAL_RANK': '1', 'WORLD_SIZE': '2'" in log_of(
        run, "user_logs/std_log_process_1.txt"
    )
    assert sorted(line[:3] for line in log_of(run).splitlines()) == ["[0]", "[1]"]
    definition = run.get_details()["runDefinition"]
    assert (definition["framework"], definition["pyTorch"]["processCount"]) == ("PyTorch", 2)

    src = ScriptRunConfig(
        source, "ranks.py", environment=here,
        distributed_job_config=TensorflowConfiguration(worker_count=2, parameter_server_count=0),
    )  # fmt: skip
    text = log_of(finished(Experiment(ws, "distributed").submit(src)))
    assert "'task': {'type': 'worker', 'index': 1}" in text

    config = RunConfiguration()
    config.environment, config.node_count = here, 2
    with pytest.raises(UserErrorException, match="node_count: got 2"):
        Experiment(ws, "distributed").submit(ScriptRunConfig(source, "ranks.py", run_config=config))
