"""Runs with the platform behind them."""

import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

from azureml.core._config_file import Names
from azureml.core._offline_run import _OfflineRun
from azureml.core.model import RESOURCES, Model
from azureml.core.resource_configuration import ResourceConfiguration
from azureml.core.workspace import Workspace
from stellwerk import experiment as native_experiment
from stellwerk import run as native
from stellwerk.api import ModelView
from stellwerk.config import discover
from stellwerk.datapath import DataPath
from stellwerk.dataset import FileDataset
from stellwerk.datastore import Datastore
from stellwerk.run_artifacts import ARTIFACT_STORE, artifact_path
from stellwerk.submitted_run import SubmittedRun
from stellwerk_agent import Run as _Inside
from stellwerk_agent import RunEnvironmentError

if TYPE_CHECKING:
    from azureml.core.environment import Environment

Roles = list[tuple[str, FileDataset]]
"""Datasets by what they were used for."""


class Run(native.Run):
    """One run of an experiment: ``Run(experiment, run_id)``. Raises UserErrorException."""

    @staticmethod
    def get_context(
        allow_offline: bool = True, used_for_context_manager: bool = False, **_: object
    ) -> "_SubmittedRun | _OfflineRun":
        """The run this process belongs to; outside a run one that only prints.

        Raises RunEnvironmentException outside a run if ``allow_offline`` is False.
        """
        del used_for_context_manager
        try:
            inside = _Inside.get_context(allow_offline=False)
        except RunEnvironmentError:
            if allow_offline:
                return _OfflineRun()
            raise
        return _SubmittedRun.around(cast("_Inside", inside))

    @staticmethod
    def list(
        experiment: native_experiment.Experiment,
        type: str | None = None,
        tags: dict[str, str | None] | str | None = None,
        properties: dict[str, str | None] | str | None = None,
        status: str | None = None,
        include_children: bool = False,
        _rehydrate_runs: bool = True,
    ) -> Iterator[native.Run]:
        """Runs of an experiment, newest first; see ``Experiment.get_runs``."""
        for run in experiment.get_runs(type, tags, properties, include_children):
            if status in {None, run.view.status}:
                yield run

    def start(self) -> None:
        """Nothing to do: a run that a client drives is Running from its beginning."""

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        description: str | None = None,
        datasets: Roles | None = None,
        sample_input_dataset: FileDataset | None = None,
        sample_output_dataset: FileDataset | None = None,
        resource_configuration: ResourceConfiguration | None = None,
        **kwargs: object,
    ) -> Model:
        """Make a model version of the run's files at ``model_path`` (None: ``model_name``).

        Raises ModelPathNotFoundException where the run has nothing there.
        """
        del kwargs
        samples = {"sample_input": sample_input_dataset, "sample_output": sample_output_dataset}
        roles = [*(datasets or ()), *((role, each) for role, each in samples.items() if each)]
        known = dict(properties or {})
        if resource_configuration is not None:
            known[RESOURCES] = json.dumps(resource_configuration.serialize())
        return super().register_model(  # type: ignore[return-value]  # made by _model
            model_name,
            model_path,
            tags,
            known,
            model_framework,
            model_framework_version,
            description,
            roles,
        )

    def get_environment(self) -> "Environment":
        """The environment that the run used, in the version it used."""
        from azureml.core.environment import Environment  # noqa: PLC0415 - few runs ask for it

        return Environment.of(super().get_environment())

    def _model(self, view: ModelView) -> Model:
        return Model.of_view(self._workspace, view)

    def _get_outputs_datapath(self) -> DataPath:
        """Where the run's ``outputs`` lie; private in v1, and used by its notebooks."""
        store = Datastore(self._workspace, ARTIFACT_STORE)
        return DataPath(store, artifact_path(self.id, "outputs"))


class _SubmittedRun(SubmittedRun, Run):  # type: ignore[misc]  # register_model is Run's at last
    """The run around this process."""

    def _find_workspace(self) -> Workspace:
        known = (
            ("workspace_name", "AZUREML_ARM_WORKSPACE_NAME"),
            ("resource_group", "AZUREML_ARM_RESOURCEGROUP"),
            ("subscription_id", "AZUREML_ARM_SUBSCRIPTION"),
        )
        names = {field: os.environ[name] for field, name in known if os.environ.get(name)}
        connection = discover()
        return Workspace.of(connection, Names(**{"workspace_name": connection.workspace, **names}))
