"""Stellwerk's SDK: train Keras models on your own machines.

Everything public is imported on first use, so that ``import stellwerk`` costs nothing.
"""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stellwerk.compute import AmlCompute, ComputeTarget
    from stellwerk.conda_dependencies import CondaDependencies
    from stellwerk.datapath import DataPath, DataReference
    from stellwerk.dataset import (
        Dataset,
        DatasetConsumptionConfig,
        FileDataset,
        TabularDataset,
    )
    from stellwerk.datastore import Datastore
    from stellwerk.docker_build_context import DockerBuildContext
    from stellwerk.environment import Environment
    from stellwerk.errors import (
        AuthenticationError,
        ComputeTargetException,
        ConflictError,
        DatasetTimestampMissingError,
        NotFoundError,
        ProtocolError,
        RunFailedError,
        ServiceUnavailableError,
        StellwerkError,
        StreamingInterruptedError,
        UserError,
    )
    from stellwerk.experiment import Experiment
    from stellwerk.keyvault import Keyvault
    from stellwerk.model import Model
    from stellwerk.output_dataset import OutputFileDatasetConfig
    from stellwerk.run import Run
    from stellwerk.script_run_config import ScriptRunConfig
    from stellwerk.workspace import Workspace

_HOMES = {
    "compute": ("AmlCompute", "ComputeTarget"),
    "conda_dependencies": ("CondaDependencies",),
    "datapath": ("DataPath", "DataReference"),
    "dataset": ("Dataset", "DatasetConsumptionConfig", "FileDataset", "TabularDataset"),
    "datastore": ("Datastore",),
    "docker_build_context": ("DockerBuildContext",),
    "environment": ("Environment",),
    "errors": (
        "AuthenticationError",
        "ComputeTargetException",
        "ConflictError",
        "DatasetTimestampMissingError",
        "NotFoundError",
        "ProtocolError",
        "RunFailedError",
        "ServiceUnavailableError",
        "StellwerkError",
        "StreamingInterruptedError",
        "UserError",
    ),
    "experiment": ("Experiment",),
    "keyvault": ("Keyvault",),
    "model": ("Model",),
    "output_dataset": ("OutputFileDatasetConfig",),
    "run": ("Run",),
    "script_run_config": ("ScriptRunConfig",),
    "workspace": ("Workspace",),
}
_NEEDS = (
    "stellwerk.{} needs more than this Python has: {}. Put `stellwerk` among the pip packages of "
    "the run's environment; `from stellwerk_agent import Run` needs nothing."
)
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "AmlCompute",
    "AuthenticationError",
    "ComputeTarget",
    "ComputeTargetException",
    "CondaDependencies",
    "ConflictError",
    "DataPath",
    "DataReference",
    "Dataset",
    "DatasetConsumptionConfig",
    "DatasetTimestampMissingError",
    "Datastore",
    "DockerBuildContext",
    "Environment",
    "Experiment",
    "FileDataset",
    "Keyvault",
    "Model",
    "NotFoundError",
    "OutputFileDatasetConfig",
    "ProtocolError",
    "Run",
    "RunFailedError",
    "ScriptRunConfig",
    "ServiceUnavailableError",
    "StellwerkError",
    "StreamingInterruptedError",
    "TabularDataset",
    "UserError",
    "Workspace",
]


def __getattr__(name: str) -> object:
    home = _HOME_OF.get(name)
    if home is None:
        raise AttributeError(f"module 'stellwerk' has no attribute {name!r}")
    if sys.version_info < (3, 11):  # noqa: UP036 - the Python of a run is its own
        raise ImportError(_NEEDS.format(name, "it is older than 3.11"))
    try:
        value: object = getattr(import_module(f"stellwerk.{home}"), name)
    except ModuleNotFoundError as error:
        lacking = (error.name or "").partition(".")[0]
        if lacking == "stellwerk":
            raise
        raise ImportError(_NEEDS.format(name, f"{lacking!r} is not installed in it")) from error
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})
