"""Namespace of the v1 SDK's import paths; other distributions may add packages to it."""

from importlib import import_module
from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)


def __getattr__(name: str) -> object:
    """``azureml.data`` after ``import azureml.core``: notebooks expect it to be there."""
    if name == "data":
        return import_module("azureml.data")
    raise AttributeError(f"module 'azureml' has no attribute {name!r}")
