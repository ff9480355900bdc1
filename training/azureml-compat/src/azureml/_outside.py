"""Packages of the v1 SDK that are not part of Stellwerk: their imports work, their use is refused.

Where another distribution brings such a package, that one is found.
"""

import sys

from azureml._refused_modules import RefusedModules
from azureml.exceptions import UserErrorException

REASONS = {
    "azureml.pipeline": (
        "pipelines are not part of Stellwerk; submit the steps one after another from a script"
    ),
    "azureml.train.automl": "AutoML is not part of Stellwerk; search with a script of your own",
    "azureml.interpret": (
        "model explanations are not part of Stellwerk; use the interpretation library itself"
    ),
    "azureml.contrib": "contributed packages are not part of Stellwerk",
    "azureml.datadrift": "drift monitors are not part of Stellwerk",
    "azureml.mlflow": "MLflow is not spoken yet; log with Run.log",
}
"""As the table of symbols has them, which a test compares."""


def reason_of(module: str) -> "str | None":
    """Why a module is not there; None for one of any other package."""
    found = [each for each in REASONS if (module + ".").startswith(each + ".")]
    return REASONS[found[0]] if found else None


def stand_in() -> None:
    """Let imports of those packages work from now on."""
    sys.meta_path.append(RefusedModules(reason_of, UserErrorException))
