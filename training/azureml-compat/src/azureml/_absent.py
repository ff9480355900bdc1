"""Where the SDK's packages are not installed: its modules as names that say what to add.

A script's first lines import what it uses anywhere. In a run whose environment has none of the
SDK's packages, or an older Python, they work, and so does what the in-run library does; what needs
the platform is refused when it is used. Works in every Python that a run may have.
"""

import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from azureml import exceptions
from azureml._refusal import Refused

_OLD = sys.version_info < (3, 11)
_PACKAGES = ("httpx2", "packaging", "pathspec", "pydantic", "yaml")
ABSENT = _OLD or any(find_spec(each) is None for each in _PACKAGES)
"""Whether the platform cannot be asked from here."""
REASON = "this asks the platform, and this environment cannot: " + (
    "its Python is older than 3.11"
    if _OLD
    else "it lacks the packages for that; add azureml-defaults to its pip packages"
)
_WHOLE = {"azureml.data", "azureml.opendatasets", "azureml.tensorboard", "azureml.widgets"}


class _Names(ModuleType):
    """Every public name; exceptions are themselves."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        content = {
            "reason": REASON,
            "exception": exceptions.RunEnvironmentException,
            "__doc__": "Refused.",
        }
        value = getattr(exceptions, name, None) or Refused(name, (), content)
        setattr(self, name, value)
        return value


class _Finder(MetaPathFinder, Loader):
    """Finds those modules of ``azureml`` that need the SDK."""

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> "ModuleSpec | None":
        del path, target
        head, _, last = fullname.rpartition(".")
        inside = head == "azureml.core" and last != "run" and not last.startswith("_")
        whole = ".".join(fullname.split(".")[:2]) in _WHOLE
        return ModuleSpec(fullname, self, is_package=True) if inside or whole else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Names(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to run."""


def stand_in() -> None:
    """Let those modules be names only, from now on, where the SDK cannot work."""
    if ABSENT:
        sys.meta_path.insert(0, _Finder())
