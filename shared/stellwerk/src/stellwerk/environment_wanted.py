"""What a definition wants, read and checked: packages, constraints, hashes. Pure."""

import re
from collections.abc import Iterable
from typing import NamedTuple

from packaging.requirements import Requirement

from stellwerk.conda_package import (
    CondaPackage,
    index_requirement,
    is_platforms,
    parse_conda_package,
)
from stellwerk.environment_definition import EnvironmentDefinition
from stellwerk.environment_names import CONDA_BUILT_IN, CONDA_SYSTEM, PLATFORM_VARIABLES
from stellwerk.environment_python import python_range
from stellwerk.environment_requirement import (
    InvalidEnvironment,
    normalise_requirements,
    parse_requirement,
)
from stellwerk.override_apply import Substitution

_CREDENTIALS = re.compile(r"://[^/\s]*@")


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
    for name in sorted(definition.environment_variables.keys() & PLATFORM_VARIABLES):
        raise InvalidEnvironment(
            "env.variable_reserved",
            field=f"environment_variables.{name}",
            got=name,
            hint="The platform sets it for every run; take another name.",
        )
    if definition.python is not None:
        python_range(definition.python)
    pip_packages(definition)
    list(conda_packages(definition))
    hashes_of(definition)
    for index, constraint in enumerate(constraints_of(definition)):
        if constraint.extras:
            raise InvalidEnvironment(
                "env.requirement",
                field=f"constraints[{index}]",
                got=str(constraint),
                hint="A constraint has no extras; write them at the package in pip_packages.",
            )


def wants_conda(definition: EnvironmentDefinition) -> bool:
    """Whether it names conda packages beyond Python and pip, and so needs a channel."""
    packages = (package for _, _, package in conda_packages(definition))
    return any(each.name not in CONDA_BUILT_IN and not is_platforms(each) for each in packages)


class Wanted(NamedTuple):
    """Requirements in the index's terms, and what each conda package became: one, or nothing."""

    all: tuple[Requirement, ...]
    exchanged: tuple[Substitution, ...]


def pip_packages(definition: EnvironmentDefinition) -> list[Requirement]:
    """Its pip packages. Raises InvalidEnvironment, as all here do."""
    return [
        parse_requirement(text, f"pip_packages[{index}]")
        for index, text in enumerate(definition.pip_packages)
    ]


def wanted_of(definition: EnvironmentDefinition) -> Wanted:
    """Everything that is wanted, in the index's terms, and which conda packages became that."""
    wanted = pip_packages(definition)
    exchanged = _from_conda(definition)
    became = (Requirement(each.became) for each in exchanged if each.became)
    return Wanted((*wanted, *became), exchanged)


def constraints_of(definition: EnvironmentDefinition) -> list[Requirement]:
    """Its constraints."""
    return [
        parse_requirement(text, f"constraints[{index}]")
        for index, text in enumerate(definition.constraints)
    ]


def hashes_of(definition: EnvironmentDefinition) -> dict[str, tuple[str, ...]]:
    """Sorted SHA-256 of the files that may be used, by requirement."""
    found = {}
    for text, digests in definition.hashes.items():
        requirement = parse_requirement(text, "hashes")
        found[normalise_requirements([requirement])[0]] = tuple(sorted(set(digests)))
    return dict(sorted(found.items()))


def conda_warnings(wanted: Wanted) -> Iterable[str]:
    """What the user is told of conda packages that come from the index, or not at all."""
    names = sorted({Requirement(each.became).name for each in wanted.exchanged if each.became})
    if names:
        yield f"conda packages are installed from the Python package index here: {', '.join(names)}"
    yield from (str(each) for each in wanted.exchanged if not each.became)


def conda_packages(definition: EnvironmentDefinition) -> Iterable[tuple[str, str, CondaPackage]]:
    """Its conda packages, each with its place and as it was written."""
    for index, text in enumerate(definition.conda_packages):
        where = f"conda_packages[{index}]"
        package = parse_conda_package(text, where)
        if package.name == "python":
            raise InvalidEnvironment(
                "env.python", field=where, got=text, hint="Set the field python instead."
            )
        yield where, text, package


def _from_conda(definition: EnvironmentDefinition) -> tuple[Substitution, ...]:
    """What each conda package becomes where the index has to stand in for channels."""
    found = []
    for where, text, package in conda_packages(definition):
        requirement = index_requirement(package, where)
        if requirement is not None:
            why = "installed from the Python package index"
            found.append(Substitution(f"conda package {text}", str(requirement), why))
        elif package.name in CONDA_SYSTEM:
            why = "a system library; packages of the index bring their own, or it is the node's"
            found.append(Substitution(f"conda package {text}", "", why))
    return tuple(found)
