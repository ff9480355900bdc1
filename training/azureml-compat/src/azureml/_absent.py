"""Where the SDK's packages are not installed: its modules as names that say what to add.

A script's first lines import what it uses anywhere. In a run whose environment has none of the
SDK's packages, or an older Python, they work, and so does what the in-run library does; what needs
the platform is refused when it is used. Works in every Python that a run may have.
"""

import sys
from importlib.util import find_spec

from azureml import exceptions
from azureml._refused_modules import RefusedModules

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


def _reason_of(module: str) -> "str | None":
    """Why a module that needs the SDK's packages cannot work; None for one that needs none."""
    head, _, last = module.rpartition(".")
    inside = head == "azureml.core" and last != "run" and not last.startswith("_")
    whole = ".".join(module.split(".")[:2]) in _WHOLE
    return REASON if inside or whole else None


def stand_in() -> None:
    """Let those modules be names only, from now on, where the SDK cannot work."""
    if ABSENT:
        sys.meta_path.insert(0, RefusedModules(_reason_of, exceptions.RunEnvironmentException))
