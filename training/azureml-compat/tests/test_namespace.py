"""Packages of the namespace are attributes of ``azureml`` without an import of their own."""

import os
import subprocess
import sys
from pathlib import Path


def test_packages_are_there_after_importing_azureml_core() -> None:
    code = "import azureml.core; print(azureml.data.__version__ == azureml.core.VERSION)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "True"


def test_other_names_are_refused() -> None:
    code = "import azureml\ntry:\n    azureml.nothing\nexcept AttributeError as e:\n    print(e)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "module 'azureml' has no attribute 'nothing'"


NOTEBOOK = """
from azureml.pipeline.core import Pipeline, PipelineData
from azureml.pipeline.steps import PythonScriptStep
import azureml.train.automl as automl
from azureml.train.automl.run import AutoMLRun
from azureml.exceptions import UserErrorException
for use in (lambda: Pipeline(None), lambda: PythonScriptStep.x, lambda: automl.AutoMLConfig()):
    try:
        use()
    except UserErrorException as error:
        print(error.message)
"""


def test_packages_that_are_not_here_are_imported_and_refused_when_used() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", NOTEBOOK], capture_output=True, text=True, check=True
    )
    pipelines = "pipelines are not part of Stellwerk; submit the steps one after another from a"
    said = shown.stdout.splitlines()
    assert said[0] == f"Pipeline: {pipelines} script"
    assert said[1].startswith(f"PythonScriptStep.x: {pipelines}")
    assert said[2].startswith("AutoMLConfig: AutoML is not part of Stellwerk")


def test_another_distribution_may_bring_such_a_package(tmp_path: Path) -> None:
    theirs = tmp_path / "azureml" / "mlflow"
    theirs.mkdir(parents=True)
    (theirs / "__init__.py").write_text("mine = 1\n")
    code = "import azureml.mlflow; print(azureml.mlflow.mine)"
    shown = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
    )
    assert shown.stdout == "1\n"
