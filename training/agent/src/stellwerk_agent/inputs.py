"""Inputs and outputs of a run, as its environment variables name them."""

import os

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import Dict, FrozenSet, Iterable


def named_paths() -> "Dict[str, str]":
    """Return input name -> path or dataset id, from AZUREML_DATASET_ENVIRONMENT_VARS."""
    listed = os.environ.get("AZUREML_DATASET_ENVIRONMENT_VARS", "")
    names = [entry.split(":")[0].strip() for entry in listed.split(",")]
    return _found(names, ["AZURE_ML_INPUT_%s", "%s", "AZUREML_DATAREFERENCE_%s"])


def direct_names() -> "FrozenSet[str]":
    """Return the names of inputs whose value is a dataset's id and not a path."""
    listed = os.environ.get("AZUREML_DATASET_ENVIRONMENT_VARS", "")
    pairs = [entry.strip().split(":") for entry in listed.split(",")]
    return frozenset([pair[0] for pair in pairs if pair[1:] == ["Direct"]])


def output_paths() -> "Dict[str, str]":
    """Return output name -> folder, from AZUREML_DATASET_FILE_OUTPUTS."""
    listed = os.environ.get("AZUREML_DATASET_FILE_OUTPUTS", "")
    return _found([name.strip() for name in listed.split(";")], ["AZURE_ML_OUTPUT_%s", "%s"])


def _found(names: "Iterable[str]", forms: "Iterable[str]") -> "Dict[str, str]":
    found = {}
    for name in names:
        for variable in [form % name for form in forms] + [name.upper()]:
            if name and variable in os.environ:
                found[name] = os.environ[variable]
                break
    return found
