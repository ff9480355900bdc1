"""What an environment is: the user's definition, its normal form, and its identity. Pure.

``from_conda_yaml``, ``from_requirements`` and ``from_packages`` read the three forms users have;
``normalise`` turns a definition into the form that decides what is installed on a machine;
``env_id`` names that form, so that equal environments are built once. Order, case, spelling,
comments and blank lines of a definition never change the id; any requirement does. Environment
variables and the environment's name are no part of it.
"""

import difflib
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stellwerk.environment_names import PROVIDED_BY_PLATFORM
from stellwerk.environment_python import choose_python, python_range, shortest
from stellwerk.environment_requirement import (
    MAX_REQUIREMENTS,
    InvalidEnvironment,
    normalise_requirements,
    parse_requirement,
    read_requirements,
)

__all__ = [
    "EnvironmentDefinition",
    "InvalidEnvironment",
    "NormalisedSpec",
    "check",
    "env_id",
    "from_conda_yaml",
    "from_dict",
    "from_packages",
    "from_requirements",
    "normalise",
]

_SCHEMA = 1  # raise it when the meaning of a normalised spec changes: every id changes with it
_CREDENTIALS = re.compile(r"://[^/\s]*@")

Text = Annotated[
    str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Texts = Annotated[tuple[Text, ...], Field(max_length=MAX_REQUIREMENTS)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
VariableText = Annotated[str, StringConstraints(max_length=32_768, pattern=r"^[^\x00]*$")]


class EnvironmentDefinition(BaseModel):
    """What the user asked for, as written.

    ``python``: a version ("3.11", "3.6.2") or a range (">=3.10,<3.13"); None means the machine's.
    ``user_managed``: nothing is installed, the run uses ``interpreter`` of its node.
    ``strict``: what this machine cannot do exactly is refused instead of relaxed with a warning.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Text | None = None
    channels: Texts = ()
    conda_packages: Texts = ()
    pip_packages: Texts = ()
    environment_variables: dict[VariableName, VariableText] = Field(
        default_factory=dict, max_length=500
    )
    user_managed: bool = False
    interpreter: Text | None = None
    strict: bool = False


class NormalisedSpec(BaseModel):
    """What is installed: one interpreter version and canonical, sorted requirements.

    ``warnings`` say what was relaxed or left out; they are no part of the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str | None = None
    requirements: tuple[str, ...] = ()
    user_managed: bool = False
    interpreter: str | None = None
    warnings: tuple[str, ...] = ()


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


def from_packages(packages: Iterable[str], *, python: str | None = None) -> EnvironmentDefinition:
    """A definition from requirements as separate texts. Raises InvalidEnvironment."""
    return from_dict({"python": python, "pip_packages": tuple(packages)})


def check(definition: EnvironmentDefinition) -> None:
    """Raise InvalidEnvironment for whatever would be refused on every machine."""
    if definition.interpreter is not None and not definition.user_managed:
        raise InvalidEnvironment(
            "env.python",
            field="interpreter",
            got=definition.interpreter,
            hint="An interpreter can only be given with user_managed; otherwise set python.",
        )
    for index, channel in enumerate(definition.channels):
        if _CREDENTIALS.search(channel):
            raise InvalidEnvironment(
                "env.channel",
                field=f"channels[{index}]",
                got=_CREDENTIALS.sub("://***@", channel),
                hint="Credentials do not belong into a definition; name the channel alone.",
            )
    if definition.python is not None:
        python_range(definition.python)
    _requirements(definition)


def normalise(
    definition: EnvironmentDefinition, *, available_pythons: Sequence[str]
) -> NormalisedSpec:
    """The normal form of ``definition`` on a machine with these interpreters, preferred first.

    Raises InvalidEnvironment for what is refused, in strict mode also for what would be relaxed.
    """
    check(definition)
    if definition.user_managed:
        interpreter = definition.interpreter or "python3"
        return NormalisedSpec(user_managed=True, interpreter=interpreter)
    python, python_warning = choose_python(
        definition.python, available_pythons, strict=definition.strict
    )
    requirements, warnings = _requirements(definition)
    return NormalisedSpec(
        python=python,
        requirements=normalise_requirements(requirements),
        warnings=((python_warning,) if python_warning else ()) + warnings,
    )


def env_id(spec: NormalisedSpec, *, platform: str, builder_version: str) -> str:
    """Identity of a prepared environment: 40 hex digits."""
    identity = {
        "schema": _SCHEMA,
        "platform": platform,
        "builder": builder_version,
        **spec.model_dump(mode="json", exclude={"warnings"}),
    }
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:40]


class _Requirements(NamedTuple):
    wanted: tuple[Requirement, ...]
    warnings: tuple[str, ...]


def _requirements(definition: EnvironmentDefinition) -> _Requirements:
    """Everything to install from the package index, and what was left out or exchanged."""
    wanted = [
        parse_requirement(text, f"pip_packages[{index}]")
        for index, text in enumerate(definition.pip_packages)
    ]
    exchanged = _from_conda(definition) if definition.conda_packages else ()
    kept = [each for each in (*wanted, *exchanged) if not _is_provided(each.name)]
    dropped = sorted({each.name for each in (*wanted, *exchanged) if _is_provided(each.name)})
    warnings = []
    if mapped := sorted({each.name for each in exchanged if not _is_provided(each.name)}):
        warnings.append(
            f"conda packages are installed from the Python package index here: {', '.join(mapped)}"
        )
    if dropped:
        warnings.append(f"left out, because the platform provides it: {', '.join(dropped)}")
    return _Requirements(tuple(kept), tuple(warnings))


def _from_conda(definition: EnvironmentDefinition) -> tuple[Requirement, ...]:
    from stellwerk.conda_file import (  # noqa: PLC0415 - YAML is costly to import
        index_requirement,
        parse_conda_package,
    )

    found = []
    for index, text in enumerate(definition.conda_packages):
        where = f"conda_packages[{index}]"
        package = parse_conda_package(text, where)
        if package.name == "python":
            raise InvalidEnvironment(
                "env.python", field=where, got=text, hint="Set the field python instead."
            )
        if _is_provided(package.name):
            found.append(Requirement(package.name))
            continue
        requirement = index_requirement(package, where)
        if requirement is None:
            continue
        if definition.strict:
            raise InvalidEnvironment(
                "env.conda_package",
                field=where,
                got=text,
                hint="Strict mode: conda packages are not exchanged for index packages. Move it "
                f"to the pip section as {requirement}, or leave strict mode.",
            )
        found.append(requirement)
    return tuple(found)


def _is_provided(name: str) -> bool:
    return canonicalize_name(name) in PROVIDED_BY_PLATFORM


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
