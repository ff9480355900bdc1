"""The v1 SDK's ScriptRunConfig: Stellwerk's, seen through a RunConfiguration."""

import logging
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from azureml.core._section import unknown
from azureml.core._table_readers import with_readers
from azureml.core.environment import Environment
from azureml.core.runconfig import (
    MAX_RUN_SECONDS,
    Distribution,
    DockerConfiguration,
    RunConfiguration,
)
from azureml.exceptions import RunConfigurationException, UserErrorException
from stellwerk import script_run_config as native
from stellwerk.client import Client
from stellwerk.datapath import DataPath, DataReference
from stellwerk.dataset_consumption import DatasetConsumptionConfig
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.output_dataset import OutputFileDatasetConfig
from stellwerk.runspec import EnvironmentReference, RunSpec

_LOG = logging.getLogger("azureml.core")
RESUME_NAME = "MODEL_LOCATION"
LOCAL = "local"


class ScriptRunConfig(native.ScriptRunConfig):
    """A script or command with everything a run of it needs.

    ``run_config`` holds what is not source: what is assigned there counts at the next submit.
    """

    run_config: RunConfiguration

    def __init__(
        self,
        source_directory: str,
        script: str | None = None,
        arguments: Sequence[Any] | str | None = None,
        run_config: RunConfiguration | None = None,
        _telemetry_values: Any = None,
        compute_target: Any = None,
        environment: Environment | None = None,
        distributed_job_config: Distribution | None = None,
        resume_from: DataPath | None = None,
        max_run_duration_seconds: float | None = MAX_RUN_SECONDS,
        command: Sequence[Any] | str | None = None,
        docker_runtime_config: DockerConfiguration | None = None,
        **more: Any,
    ) -> None:
        if script is not None and command is not None:
            raise UserErrorException("script, command: give exactly one of them")
        config = run_config if run_config is not None else RunConfiguration()
        given = {
            "arguments": arguments,
            "compute_target": compute_target,
            "environment": environment,
            "distributed_job_config": distributed_job_config,
            "docker_runtime_config": docker_runtime_config,
        }
        if run_config is None:
            _configure(config, **given)
            config.max_run_duration_seconds = max_run_duration_seconds
            arguments = native.as_list(arguments)
        else:
            _check_type("run_config", run_config, RunConfiguration)
            arguments = config.arguments or given.pop("arguments")
            _say_ignored([name for name, value in given.items() if value is not None])
        object.__setattr__(self, "run_config", config)
        super().__init__(
            source_directory,
            script if command is not None else script or config.script,
            arguments,
            compute_target=config.target,
            environment=config.environment,
            max_run_duration_seconds=config.max_run_duration_seconds,
            command=command if script is not None else command or config.command,
            **more,
        )
        if resume_from is not None:
            _check_type("resume_from", resume_from, DataPath)
            reference = resume_from.create_data_reference(RESUME_NAME)
            self.arguments += ["--resume-from", reference]
        object.__setattr__(self, "_complete", True)

    def __setattr__(self, name: str, value: object) -> None:
        if getattr(self, "_complete", False) and not hasattr(self, name):
            raise AttributeError(unknown(self, name, vars(self)))
        super().__setattr__(name, value)

    @property
    def environment(self) -> Environment:
        """``run_config.environment``."""
        return self.run_config.environment

    @environment.setter
    def environment(self, environment: Environment) -> None:
        self.run_config.environment = environment

    @property
    def compute_target(self) -> str:
        """``run_config.target``."""
        return self.run_config.target

    @compute_target.setter
    def compute_target(self, target: object) -> None:
        self.run_config.target = target

    @property
    def arguments(self) -> list[Any]:
        """``run_config.arguments``."""
        return self.run_config.arguments

    @arguments.setter
    def arguments(self, arguments: Sequence[Any] | str | None) -> None:
        self.run_config.arguments = native.as_list(arguments)

    @property
    def max_run_duration_seconds(self) -> float | None:
        """``run_config.max_run_duration_seconds``."""
        return self.run_config.max_run_duration_seconds

    @max_run_duration_seconds.setter
    def max_run_duration_seconds(self, seconds: float | None) -> None:
        self.run_config.max_run_duration_seconds = seconds

    def spec(self, client: Client, snapshot: str, tags: dict[str, str | None]) -> RunSpec:
        """The run request's spec, from everything as it is now."""
        config = self.run_config
        self.distributed = config.distributed()
        self.data_references = dict(config.data_references)
        spec = super().spec(client, snapshot, tags)
        python = config.environment.python
        plain = python.user_managed_dependencies and python.interpreter_path == "python"
        if plain and spec.target == LOCAL and _is_here(client):
            # On the local target v1's "python" is the one that submits, with its packages.
            here = config.environment.definition().model_copy(
                update={"interpreter": sys.executable}
            )
            spec = spec.model_copy(update={"environment": here})
        if idle := config.docker.idle():
            _LOG.warning("docker: %s: recorded, without effect on a run", ", ".join(idle))
        if config.docker.use_docker or config.docker.idle():
            spec = spec.model_copy(update={"container": config.docker.container()})
        return spec

    def _environment(self) -> EnvironmentReference | EnvironmentDefinition:
        return with_readers(super()._environment(), self._data(self._command_line()[1]))

    def _command_line(self) -> tuple[tuple[str, ...] | None, list[Any]]:
        """A list is one line of the shell, as in v1; data in it becomes its variable."""
        if self.command is None or isinstance(self.command, str):
            return super()._command_line()
        line = " ".join(_word(each) for each in self.command)
        return ("/bin/sh", "-c", line), self.arguments

    def _data(self, arguments: Sequence[Any]) -> list[Any]:
        in_command = [] if self.command is None or isinstance(self.command, str) else self.command
        data = [each for each in in_command if _variable(each) is not None]
        return [*super()._data(arguments), *data]


def _configure(
    config: RunConfiguration,
    *,
    arguments: object,
    compute_target: object,
    environment: Environment | None,
    distributed_job_config: Distribution | None,
    docker_runtime_config: DockerConfiguration | None,
) -> None:
    del arguments
    if compute_target is not None:
        config.target = compute_target
    if environment is not None:
        config.environment = environment
        docker = environment.docker
        config.docker = DockerConfiguration(
            docker.enabled, docker.shared_volumes, docker.arguments, docker.shm_size
        )
    if distributed_job_config is not None:
        config.distribute(distributed_job_config)
    if docker_runtime_config is not None:
        _check_type("docker_runtime_config", docker_runtime_config, DockerConfiguration)
        config.docker = docker_runtime_config


def _variable(value: object) -> str | None:
    """The variable that holds the path of some data in a run; None: it is no data."""
    match value:
        case DataReference():
            return f"AZUREML_DATAREFERENCE_{value.data_reference_name}"
        case DatasetConsumptionConfig():
            return f"AZURE_ML_INPUT_{value.name}"
        case OutputFileDatasetConfig():
            return f"AZURE_ML_OUTPUT_{value.name}"
    return None


def _word(value: object) -> str:
    variable = _variable(value)
    return str(value) if variable is None else f'"${variable}"'


def _is_here(client: Client) -> bool:
    """Whether the platform runs on this machine."""
    return urlsplit(client.address("/")).hostname in {"127.0.0.1", "::1", "localhost"}


def _check_type(field: str, value: object, wanted: type) -> None:
    if not isinstance(value, wanted):
        raise RunConfigurationException(
            f"{field}: got {type(value).__name__}; give a {wanted.__name__}"
        )


def _say_ignored(names: list[str]) -> None:
    if names:
        _LOG.warning(
            "ScriptRunConfig: run_config is given, so %s is ignored; set it in run_config",
            ", ".join(names),
        )
