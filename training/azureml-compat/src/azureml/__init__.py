"""Namespace of the v1 SDK's import paths; other distributions may add packages to it.

Its packages are loaded when they are first named: ``import azureml.core`` made all of them
attributes of ``azureml``, and notebooks rely on that.
"""

from importlib import import_module
from pkgutil import extend_path
from types import ModuleType

__path__ = extend_path(__path__, __name__)

from azureml._outside import stand_in

_PACKAGES = frozenset(
    {"core", "data", "exceptions", "opendatasets", "telemetry", "tensorboard", "train", "widgets"}
)


stand_in()


def __getattr__(name: str) -> ModuleType:
    """A package of the namespace. Raises AttributeError for any other name."""
    if name in _PACKAGES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
