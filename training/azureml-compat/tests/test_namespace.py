"""Packages of the namespace are attributes of ``azureml`` without an import of their own."""

import subprocess
import sys


def test_packages_are_there_after_importing_azureml_core() -> None:
    code = "import azureml.core; print(azureml.data.__version__ == azureml.core.VERSION)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "True"


def test_other_names_are_refused() -> None:
    code = "import azureml\ntry:\n    azureml.nothing\nexcept AttributeError as e:\n    print(e)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "module 'azureml' has no attribute 'nothing'"
