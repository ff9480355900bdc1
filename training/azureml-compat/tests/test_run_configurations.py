"""ScriptRunConfig and RunConfiguration as v1 code uses them, without a platform."""

import logging
import sys
from pathlib import Path
from typing import Any

import pytest

from azureml.core import Environment, ScriptRunConfig
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.runconfig import (
    DockerConfiguration,
    MpiConfiguration,
    PyTorchConfiguration,
    RunConfiguration,
    TensorflowConfiguration,
)
from azureml.exceptions import RunConfigurationException, UserErrorException
from stellwerk.client import Client
from stellwerk.config import Connection
from stellwerk.runspec import RunSpec


def spec(config: ScriptRunConfig) -> RunSpec:
    return config.spec(None, "0" * 64, {})  # type: ignore[arg-type]  # no data: no client is asked


def test_defaults() -> None:
    src = ScriptRunConfig(source_directory=".", script="train.py")
    assert src.run_config.target == "local"
    assert src.run_config.environment.name == "default-environment"
    made = spec(src)
    assert (made.target, made.environment_name) == ("local", "default-environment")
    assert made.distributed is None
    assert made.container is None


def test_the_view_reaches_the_later_submit() -> None:
    first, second = Environment("first"), Environment("second")
    src = ScriptRunConfig(
        ".", "train.py", ["--a", 1], environment=first, compute_target="cpu-cluster"
    )
    assert spec(src).environment_name == "first"
    first.python.conda_dependencies.add_pip_package("six")
    assert "six" in spec(src).environment.pip_packages  # type: ignore[union-attr]
    src.run_config.environment = second
    src.run_config.target = "gpu-cluster"
    assert (spec(src).environment_name, spec(src).target) == ("second", "gpu-cluster")
    second.python.user_managed_dependencies = True
    assert spec(src).environment.interpreter == "python"  # type: ignore[union-attr]
    src.run_config.arguments += ["--b"]
    assert spec(src).arguments == ("--a", "1", "--b")
    second.environment_variables["MESSAGE"] = "x"
    assert src.run_config.environment_variables["MESSAGE"] == "x"


def test_python_of_the_local_target_is_the_one_that_submits() -> None:
    own = Environment("own")
    own.python.user_managed_dependencies = True
    src = ScriptRunConfig(".", "train.py", environment=own)

    def interpreter(url: str) -> str | None:
        client = Client(Connection(url=url, token="t", workspace="w"))
        return src.spec(client, "0" * 64, {}).environment.interpreter  # type: ignore[union-attr]

    assert interpreter("http://127.0.0.1:1") == sys.executable
    assert interpreter("http://elsewhere.example:1") == "python"
    own.python.interpreter_path = "/opt/python"
    assert interpreter("http://127.0.0.1:1") == "/opt/python"
    own.python.interpreter_path = "python"
    src.run_config.target = "cpu-cluster"
    assert interpreter("http://127.0.0.1:1") == "python"


def test_a_run_configuration_wins_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    conda = CondaDependencies.create(pip_packages=["six"])
    run_config = RunConfiguration(conda_dependencies=conda, framework="python")
    run_config.target = "cpu-cluster"
    with caplog.at_level(logging.WARNING):
        src = ScriptRunConfig(
            ".",
            "train.py",
            ["--x"],
            run_config,
            compute_target="other",
            environment=Environment("e"),
        )
    assert "compute_target, environment is ignored" in caplog.text
    made = spec(src)
    assert (made.target, made.environment_name, made.arguments) == (
        "cpu-cluster",
        "default-environment",
        ("--x",),
    )
    assert "six" in made.environment.pip_packages  # type: ignore[union-attr]
    assert src.run_config is run_config


@pytest.mark.parametrize(
    ("given", "distributed", "definition"),
    [
        (PyTorchConfiguration(process_count=4), ("pytorch", 4, 0), "PyTorch"),
        (PyTorchConfiguration("Gloo"), ("pytorch", 1, 0), "PyTorch"),
        (MpiConfiguration(process_count_per_node=2), ("mpi", 2, 0), "Python"),
        (
            TensorflowConfiguration(worker_count=2, parameter_server_count=1),
            ("tensorflow", 3, 1),
            "TensorFlow",
        ),
    ],
)
def test_distributions(given: Any, distributed: tuple[str, int, int], definition: str) -> None:
    src = ScriptRunConfig(".", "train.py", distributed_job_config=given)
    made = spec(src).distributed
    assert made is not None
    assert (made.backend, made.process_count, made.parameter_servers) == distributed
    assert src.run_config.framework == definition


def test_more_nodes_and_wrong_types_are_refused() -> None:
    for given in (
        MpiConfiguration(node_count=2),
        PyTorchConfiguration(process_count=4, node_count=2),
    ):
        with pytest.raises(UserErrorException, match=r"node_count: got 2; a run has one node here"):
            spec(ScriptRunConfig(".", "train.py", distributed_job_config=given))
    several = ScriptRunConfig(".", "train.py")
    several.run_config.node_count = 3
    with pytest.raises(UserErrorException, match="node_count: got 3"):
        spec(several)
    for name, value in (
        ("distributed_job_config", {"backend": "mpi"}),
        ("docker_runtime_config", True),
        ("run_config", "local"),
        ("resume_from", "folder"),
    ):
        with pytest.raises(RunConfigurationException, match=f"{name}: got"):
            ScriptRunConfig(".", "train.py", **{name: value})
    with pytest.raises(UserErrorException, match="environment: got str"):
        ScriptRunConfig(".", "train.py", environment="AzureML-Minimal")  # type: ignore[arg-type]
    with pytest.raises(UserErrorException, match="script, command"):
        ScriptRunConfig(".", "train.py", command="python train.py")
    spark = ScriptRunConfig(".", "train.py", run_config=RunConfiguration(framework="PySpark"))
    with pytest.raises(UserErrorException, match="Spark"):
        spec(spark)


@pytest.mark.parametrize(
    ("section", "name", "meant"),
    [
        ("", "enviroment", "environment"),
        ("run_config", "enviroment", "environment"),
        ("run_config.docker", "shmsize", "shm_size"),
        ("run_config.history", "snapshot", "snapshot_project"),
    ],
)
def test_typos_are_refused(section: str, name: str, meant: str) -> None:
    target: Any = ScriptRunConfig(".", "train.py")
    for part in filter(None, section.split(".")):
        target = getattr(target, part)
    with pytest.raises(AttributeError, match=f"did you mean '{meant}'"):
        setattr(target, name, 1)


def test_docker_is_recorded_and_said(caplog: pytest.LogCaptureFixture) -> None:
    docker = DockerConfiguration(use_docker=True, arguments=["--cpus=2"], shm_size="4g")
    src = ScriptRunConfig(".", "train.py", docker_runtime_config=docker)
    with caplog.at_level(logging.WARNING):
        container = spec(src).container
    assert container is not None
    assert (container.use, container.arguments, container.shm_size) == (True, ("--cpus=2",), "4g")
    assert "docker: arguments, shm_size: recorded, without effect" in caplog.text
    old = Environment("old")
    old.docker.enabled = True
    old.docker.shm_size = "1g"
    copied = ScriptRunConfig(".", "train.py", environment=old).run_config.docker
    assert (copied.use_docker, copied.shm_size) == (True, "1g")


def test_commands(tmp_path: Path) -> None:
    text = ScriptRunConfig(".", command="pip list && python train.py --a $HOME")
    assert spec(text).command == ("/bin/sh", "-c", "pip list && python train.py --a $HOME")
    words = ScriptRunConfig(".", command=["echo hello &&", "python", "train.py", "--lr", 0.1])
    assert spec(words).command == ("/bin/sh", "-c", "echo hello && python train.py --lr 0.1")
