"""What a run shall do: ``ScriptRunConfig`` with the v1 SDK's arguments, and its conversion."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stellwerk.client import Client
from stellwerk.compute import ComputeTarget
from stellwerk.datapath import DataReference, DataReferenceConfiguration
from stellwerk.dataset_consumption import DatasetConsumptionConfig
from stellwerk.environment import Environment
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.errors import UserError
from stellwerk.output_dataset import OutputFileDatasetConfig
from stellwerk.refusals import checked, naming_the_field
from stellwerk.runspec import (
    Distributed,
    EnvironmentReference,
    Resources,
    RunSpec,
    SnapshotSource,
)
from stellwerk.script_data import argument, gather, is_data, remember

if TYPE_CHECKING:
    from stellwerk.run import Run

MAX_RUN_SECONDS = 2592000


class ScriptRunConfig:
    """A script (or command), its source folder, arguments, environment and target.

    ``arguments`` may hold texts, numbers, ``dataset.as_mount()``, outputs and data references.
    Beyond v1: ``priority`` (0 to 100, higher first), ``max_retries`` (times a failed script is
    tried again), ``resources`` (cpus, memory_mb, gpus), ``inputs`` and ``outputs`` (those that are
    no argument), ``data_references`` (by name), ``environment_variables``, ``display_name``,
    ``warm`` (auto, never or require: whether it begins in a process of its environment that has
    the frameworks loaded).

    Raises UserError for what is wrong in ``distributed_job_config`` and ``resources``; the rest is
    looked at when it is submitted.
    """

    def __init__(
        self,
        source_directory: str,
        script: str | None = None,
        arguments: Sequence[Any] | str | None = None,
        run_config: None = None,
        _telemetry_values: Any = None,
        compute_target: ComputeTarget | str | None = None,
        environment: Environment | None = None,
        distributed_job_config: Distributed | dict[str, Any] | None = None,
        resume_from: None = None,
        max_run_duration_seconds: float | None = MAX_RUN_SECONDS,
        command: Sequence[Any] | str | None = None,
        docker_runtime_config: None = None,
        *,
        inputs: Sequence[DatasetConsumptionConfig] = (),
        outputs: Sequence[OutputFileDatasetConfig] = (),
        data_references: Mapping[str, DataReference | DataReferenceConfiguration] | None = None,
        environment_variables: dict[str, str] | None = None,
        priority: int = 50,
        max_retries: int = 0,
        resources: Resources | dict[str, Any] | None = None,
        display_name: str | None = None,
        warm: Literal["auto", "never", "require"] = "auto",
    ) -> None:
        _refuse_unsupported(
            run_config=run_config,
            resume_from=resume_from,
            docker_runtime_config=docker_runtime_config,
        )
        self.source_directory = source_directory
        self.script = script
        self.arguments: list[Any] = as_list(arguments)
        self.command = command
        self.compute_target = compute_target
        self.environment = environment
        self.max_run_duration_seconds = max_run_duration_seconds
        self.inputs = list(inputs)
        self.outputs = list(outputs)
        self.data_references = dict(data_references or {})
        self.environment_variables = dict(environment_variables or {})
        self.priority = priority
        self.max_retries = max_retries
        self.resources = checked(Resources, resources or Resources(), "resources")
        self.display_name = display_name
        self.warm = warm
        self.distributed: Distributed | dict[str, Any] | None = None
        if distributed_job_config is not None:
            self.distributed = checked(
                Distributed, distributed_job_config, "distributed_job_config"
            )

    @property
    def target(self) -> str:
        """Name of the compute target; ``local`` where none was given."""
        given = self.compute_target
        return given if isinstance(given, str) else given.name if given else "local"

    def check(self) -> None:
        """Raise UserError for what is wrong before anything is uploaded."""
        if (self.script is None) == (self.command is None):
            raise UserError("script: give exactly one of script and command", field="script")
        if self.script is None:
            return
        path = Path(self.source_directory, self.script)
        if not path.is_file():
            raise UserError(
                f"script: there is no file {self.script!r} in source_directory "
                f"{self.source_directory!r}",
                code="source.entrypoint",
                field="script",
            )

    def spec(self, client: Client, snapshot: str, tags: dict[str, str | None]) -> RunSpec:
        """The run request's spec. Saves datasets that are only plans yet. Raises UserError."""
        command, arguments = self._command_line()
        inputs, outputs = gather(client, self._data(arguments), self.data_references)
        with naming_the_field():
            return RunSpec(
                source=SnapshotSource(snapshot=snapshot),
                script=self.script,
                command=command,
                arguments=tuple(argument(index, each) for index, each in enumerate(arguments)),
                inputs=inputs,
                outputs=outputs,
                environment=(environment := self._environment()),
                environment_name=self._environment_name(environment),
                distributed=self.distributed,
                environment_variables=self.environment_variables,
                target=self.target,
                resources=self.resources,
                priority=self.priority,
                max_duration_s=self.max_run_duration_seconds or MAX_RUN_SECONDS,
                max_retries=self.max_retries,
                tags=tags,
                display_name=self.display_name,
                warm=self.warm,
            )

    def submitted(self, run: "Run") -> None:
        """Let the outputs know the run that makes them."""
        remember(self._data(self._command_line()[1]), run)

    def _data(self, arguments: Sequence[Any]) -> list[Any]:
        return [*self.inputs, *self.outputs, *arguments]

    def _environment(self) -> EnvironmentReference | EnvironmentDefinition:
        if self.environment is None:
            return EnvironmentDefinition()
        return self.environment.reference() or self.environment.definition()

    def _environment_name(self, used: EnvironmentReference | EnvironmentDefinition) -> str | None:
        """What an environment that is not registered is called by its user."""
        if self.environment is None or isinstance(used, EnvironmentReference):
            return None
        return self.environment.name

    def _command_line(self) -> tuple[tuple[str, ...] | None, list[Any]]:
        """The command up to its first dataset, and what comes after as arguments."""
        if self.command is None:
            return None, self.arguments
        if isinstance(self.command, str):
            return ("/bin/sh", "-c", self.command), self.arguments
        parts = list(self.command)
        split = next((i for i, each in enumerate(parts) if is_data(each)), len(parts))
        return tuple(str(each) for each in parts[:split]), [*parts[split:], *self.arguments]


def as_list(arguments: Sequence[Any] | str | None) -> list[Any]:
    """Arguments one by one; a text is split as a shell would."""
    if isinstance(arguments, str):
        return list(shlex.split(arguments))
    return list(arguments or ())


def _refuse_unsupported(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            raise UserError(
                f"{name}: Stellwerk does not support this argument yet; leave it out",
                code="unsupported",
                field=name,
            )
