"""Environments that every installation has ready under a name, versions pinned.

Each is two files of this folder: ``<name>.yaml`` says what it holds (``description``, ``python``,
``packages``, ``variables``), ``<name>.lock`` the version of everything that comes along, for every
Python in that range. ``make curated`` resolves the locks anew.
"""

from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

from pydantic import BaseModel, ConfigDict

from stellwerk.environment_requirement import read_requirements
from stellwerk.environment_spec import EnvironmentDefinition, from_dict


class CuratedEnvironment(BaseModel):
    """One of them; ``description`` is for people."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    definition: EnvironmentDefinition


class CuratedFile(BaseModel):
    """What the YAML file of one says; ``python`` is a range."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str
    python: str
    packages: list[str]
    variables: dict[str, str] = {}


@cache
def curated_environments() -> dict[str, CuratedEnvironment]:
    """All of them, by name."""
    folder = resources.files(__name__)
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".yaml"))
    return {name: _read(name, folder) for name in (each.removesuffix(".yaml") for each in names)}


def curated_environment(name: str) -> CuratedEnvironment | None:
    """The one called ``name``, upper and lower case alike; None: there is none."""
    return curated_environments().get(name.lower())


def curated_file(text: str) -> CuratedFile:
    """The content of one's YAML file."""
    import yaml  # noqa: PLC0415 - costly to import, and only the builder needs it

    return CuratedFile.model_validate(yaml.safe_load(text))


def _read(name: str, folder: Traversable) -> CuratedEnvironment:
    file = curated_file((folder / f"{name}.yaml").read_text("utf-8"))
    definition = from_dict(
        {
            "python": file.python,
            "pip_packages": file.packages,
            "constraints": read_requirements((folder / f"{name}.lock").read_text("utf-8")),
            "environment_variables": file.variables,
        }
    )
    return CuratedEnvironment(name=name, description=file.description, definition=definition)
