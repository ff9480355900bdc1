"""The v1 SDK's core objects. Everything is imported on first use."""

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from azureml._absent import stand_in
from azureml._border import speak_v1

if TYPE_CHECKING:
    from azureml.core.compute import ComputeTarget
    from azureml.core.dataset import Dataset
    from azureml.core.datastore import Datastore
    from azureml.core.environment import Environment
    from azureml.core.experiment import Experiment
    from azureml.core.keyvault import Keyvault
    from azureml.core.model import Model
    from azureml.core.run import Run
    from azureml.core.runconfig import RunConfiguration
    from azureml.core.script_run_config import ScriptRunConfig
    from azureml.core.webservice import Webservice
    from azureml.core.workspace import Workspace

VERSION = __version__ = "1.61.0+stellwerk"
"""The last version of the original whose interface this follows."""

HOMES = {
    "ComputeTarget": "compute",
    "Dataset": "dataset",
    "Datastore": "datastore",
    "Environment": "environment",
    "Experiment": "experiment",
    "Keyvault": "keyvault",
    "Model": "model",
    "Run": "run",
    "RunConfiguration": "runconfig",
    "ScriptRunConfig": "script_run_config",
    "Webservice": "webservice",
    "Workspace": "workspace",
}
"""Module of each name."""

__all__ = [
    "VERSION",
    "ComputeTarget",
    "Dataset",
    "Datastore",
    "Environment",
    "Experiment",
    "Keyvault",
    "Model",
    "Run",
    "RunConfiguration",
    "ScriptRunConfig",
    "Webservice",
    "Workspace",
]

speak_v1()
stand_in()


def __getattr__(name: str) -> object:
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'azureml.core' has no attribute {name!r}")
    value: object = getattr(import_module(f"azureml.core.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> "list[str]":
    return sorted({*globals(), *__all__})


if sys.version_info < (3, 7):  # noqa: UP036 - which does not know a module's __getattr__
    for _name in HOMES:
        __getattr__(_name)
