"""Definitions of environments, checked, from the forms that users have of them. Pure."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from stellwerk.environment_definition import EnvironmentDefinition
from stellwerk.environment_python import shortest
from stellwerk.environment_requirement import InvalidEnvironment, read_requirements
from stellwerk.environment_wanted import check


def from_dict(data: Mapping[str, Any]) -> EnvironmentDefinition:
    """A definition from plain data. Raises InvalidEnvironment (env.field_unknown, env.field)."""
    try:
        definition = EnvironmentDefinition.model_validate(dict(data))
    except ValidationError as error:
        raise _from_validation(error) from error
    check(definition)
    return definition


def from_conda_yaml(text: str) -> EnvironmentDefinition:
    """A definition from a conda environment file. Raises InvalidEnvironment."""
    from stellwerk.conda_file import read_conda_yaml  # noqa: PLC0415 - YAML is costly to import

    found = read_conda_yaml(text)
    return from_dict(
        {
            "python": None if found.python is None else shortest(found.python),
            "channels": found.channels,
            "conda_packages": found.conda_packages,
            "pip_packages": found.pip_packages,
            "environment_variables": found.variables,
        }
    )


def from_requirements(text: str, *, python: str | None = None) -> EnvironmentDefinition:
    """A definition from the text of a requirements.txt. Raises InvalidEnvironment."""
    return from_dict({"python": python, "pip_packages": read_requirements(text)})


def from_pyproject(
    text: str, *, lock: str | None = None, extras: Sequence[str] = (), groups: Sequence[str] = ()
) -> EnvironmentDefinition:
    """A definition from a project's pyproject.toml, its extras and dependency groups.

    ``lock``: the text of its uv.lock; versions and files are those it names then. Raises
    InvalidEnvironment.
    """
    from stellwerk.pyproject_file import read_pyproject  # noqa: PLC0415 - seldom needed

    found = read_pyproject(text, lock=lock, extras=extras, groups=groups)
    return from_dict(
        {
            "python": found.python,
            "pip_packages": found.packages,
            "constraints": found.constraints,
            "hashes": found.hashes,
        }
    )


def from_packages(packages: Iterable[str], *, python: str | None = None) -> EnvironmentDefinition:
    """A definition from requirements as separate texts. Raises InvalidEnvironment."""
    return from_dict({"python": python, "pip_packages": tuple(packages)})


def _from_validation(error: ValidationError) -> InvalidEnvironment:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "environment"
    if first["type"] != "extra_forbidden":
        return InvalidEnvironment(
            "env.field", field=where, got=str(first["input"]), hint=f"{first['msg']}."
        )
    known = tuple(EnvironmentDefinition.model_fields)
    close = difflib.get_close_matches(where, known, n=1)
    return InvalidEnvironment(
        "env.field_unknown",
        field=where,
        got=where,
        hint=(f"Did you mean {close[0]}? " if close else "") + f"Fields are {', '.join(known)}.",
    )
