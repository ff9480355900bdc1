"""What an environment is: the user's definition, its normal form, and its identity. Pure.

``from_conda_yaml``, ``from_requirements``, ``from_pyproject`` and ``from_packages`` read the forms
users have;
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
from dataclasses import replace
from typing import Annotated, Any, NamedTuple

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from stellwerk.conda_package import (
    CondaPackage,
    index_requirement,
    is_platforms,
    parse_conda_package,
)
from stellwerk.conda_part import (
    CondaPart,
    KnownChannels,
    choose_channel,
    choose_channels,
    choose_conda_python,
)
from stellwerk.environment_container import BuildContext, Container, container
from stellwerk.environment_names import CONDA_BUILT_IN, CONDA_SYSTEM, PLATFORM_VARIABLES
from stellwerk.environment_python import choose_python, python_range, shortest
from stellwerk.environment_requirement import (
    MAX_REQUIREMENTS,
    InvalidEnvironment,
    normalise_requirements,
    parse_requirement,
    read_requirements,
)
from stellwerk.override_apply import Substitution, needs_sdk, substitute
from stellwerk.override_table import MENDS, Accelerator, Mend, OverrideTable, builtin

__all__ = [
    "EnvironmentDefinition",
    "InvalidEnvironment",
    "NormalisedSpec",
    "check",
    "env_id",
    "from_conda_yaml",
    "from_dict",
    "from_packages",
    "from_pyproject",
    "from_requirements",
    "normalise",
    "wants_conda",
]

_SCHEMA = 1  # raise it when the meaning of a normalised spec changes: every id changes with it
# Ids of environments without these fields are older than they are.
_YOUNGER = ("mends", "conda", "hashes", "constraints", "lock", "container")
_CREDENTIALS = re.compile(r"://[^/\s]*@")

Text = Annotated[
    str, StringConstraints(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]*$")
]
Texts = Annotated[tuple[Text, ...], Field(max_length=MAX_REQUIREMENTS)]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
FileHashes = Annotated[
    dict[Text, Annotated[tuple[Sha256, ...], Field(max_length=200)]],
    Field(max_length=MAX_REQUIREMENTS),
]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,127}$")]
VariableText = Annotated[str, StringConstraints(max_length=32_768, pattern=r"^[^\x00]*$")]


class EnvironmentDefinition(BaseModel):
    """What the user asked for, as written.

    ``python``: a version ("3.11", "3.6.2") or a range (">=3.10,<3.13"); None means the machine's.
    ``constraints``: versions of whatever of these packages is needed, as of a lock; they want
    nothing themselves.
    ``hashes``: of those versions, by ``name==version``: SHA-256 of the files that may be used.
    ``user_managed``: nothing is installed, the run uses ``interpreter`` of its node.
    ``strict``: what this machine cannot do exactly is refused instead of relaxed with a warning.
    ``image``, ``dockerfile`` (its text), ``build_context``: what the environment stands on, one of
    them, instead of the platform's base image. The packages are laid on it; ``user_managed``: it
    is used as it is, and ``interpreter`` is one of its own. Runs have to be containers for that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: Text | None = None
    channels: Texts = ()
    conda_packages: Texts = ()
    pip_packages: Texts = ()
    constraints: Texts = ()
    hashes: FileHashes = {}
    environment_variables: dict[VariableName, VariableText] = Field(
        default_factory=dict, max_length=500
    )
    user_managed: bool = False
    interpreter: Text | None = None
    strict: bool = False
    image: Text | None = None
    dockerfile: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    build_context: BuildContext | None = None


class NormalisedSpec(BaseModel):
    """What is installed: one interpreter version and canonical, sorted requirements.

    ``conda``: what a conda solver installs first; the interpreter is one of its packages then,
    and ``python`` None.
    ``mends`` are changes of meaning that the environment puts right (keras-lr). ``lock`` is the
    digest of a lock that is installed as it is, instead of resolving the requirements. With a
    ``container`` the interpreter is the image's: ``python`` and ``requirements`` are as wanted
    then, and what becomes of them is settled when the image is there.
    ``warnings`` say what was relaxed or left out; they are no part of the identity.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    python: str | None = None
    conda: CondaPart | None = None
    requirements: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    hashes: dict[str, tuple[str, ...]] = {}
    user_managed: bool = False
    interpreter: str | None = None
    mends: tuple[Mend, ...] = ()
    lock: str | None = None
    container: Container | None = None
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
    _pip(definition)
    list(_conda_packages(definition))
    _hashes(definition)
    for index, constraint in enumerate(_constraints(definition)):
        if constraint.extras:
            raise InvalidEnvironment(
                "env.requirement",
                field=f"constraints[{index}]",
                got=str(constraint),
                hint="A constraint has no extras; write them at the package in pip_packages.",
            )


def normalise(
    definition: EnvironmentDefinition,
    *,
    available_pythons: Sequence[str],
    overrides: OverrideTable | None = None,
    accelerator: Accelerator = "cpu",
    conda: KnownChannels | None = None,
) -> NormalisedSpec:
    """The normal form of ``definition`` on a machine with these interpreters, preferred first.

    ``overrides`` None is the built-in table; ``conda`` None: there are no channels, the package
    index stands in for them. Raises InvalidEnvironment for what is refused, in
    strict mode also for everything that would be exchanged (env.strict), all of it named.
    """
    check(definition)
    table = overrides or builtin()
    stands_on, images = _container(definition, table)
    if stands_on is not None:
        return _in_container(definition, stands_on)
    if definition.user_managed:
        _refuse_if_strict(definition, images)
        interpreter = definition.interpreter or "python"
        return NormalisedSpec(user_managed=True, interpreter=interpreter, warnings=_texts(images))
    if conda is not None and wants_conda(definition):
        return _with_conda(definition, available_pythons, table, accelerator, conda, images)
    wanted = _requirements(definition)
    sdk = table.sdk.python if needs_sdk(wanted.all, table) else None
    python, python_reason = choose_python(definition.python, available_pythons, sdk=sdk)
    outcome = substitute(wanted.all, python=python, table=table, accelerator=accelerator)
    exchanged = (
        *(
            [Substitution(f"python {definition.python}", python, python_reason)]
            * bool(python_reason)
        ),
        *outcome.substitutions,
        *images,
    )
    _refuse_if_strict(definition, (*wanted.exchanged, *exchanged))
    return NormalisedSpec(
        python=python,
        requirements=normalise_requirements(outcome.requirements),
        constraints=normalise_requirements(_constraints(definition)),
        hashes=_hashes(definition),
        mends=tuple(sorted(outcome.mends)),
        warnings=(
            *_conda_warning(wanted),
            *_texts(exchanged),
            *(MENDS[mend] for mend in sorted(outcome.mends)),
        ),
    )


def wants_conda(definition: EnvironmentDefinition) -> bool:
    """Whether it names conda packages beyond Python and pip, and so needs a channel."""
    packages = (package for _, _, package in _conda_packages(definition))
    return any(each.name not in CONDA_BUILT_IN and not is_platforms(each) for each in packages)


def _with_conda(
    definition: EnvironmentDefinition,
    available_pythons: Sequence[str],
    table: OverrideTable,
    accelerator: Accelerator,
    known: KnownChannels,
    images: Sequence[Substitution],
) -> NormalisedSpec:
    """The conda packages as they are, and on top of them the pip packages."""
    found = [(where, package) for where, _, package in _conda_packages(definition)]
    packages = [package for _, package in found]
    ours = [
        Requirement(each.name + (each.versions or "")) for each in packages if is_platforms(each)
    ]
    wanted = [*_pip(definition), *ours]
    sdk = table.sdk.python if needs_sdk(wanted, table) else None
    python = choose_conda_python(definition.python, available_pythons, sdk=sdk)
    outcome = substitute(wanted, python=f"{python.minor}.0", table=table, accelerator=accelerator)
    channels, renamed = choose_channels(definition.channels, known)
    of_packages = {
        package.channel: choose_channel(package.channel, known, where)
        for where, package in found
        if package.channel and not is_platforms(package)
    }
    channels = tuple(dict.fromkeys((*channels, *(name for name, _ in of_packages.values()))))
    renamed = (*renamed, *(each for _, each in of_packages.values() if each))
    exchanged = (
        *(
            [Substitution(f"python {definition.python}", python.minor, python.reason)]
            * bool(python.reason)
        ),
        *renamed,
        *outcome.substitutions,
        *images,
    )
    _refuse_if_strict(definition, exchanged)
    specs = {
        replace(each, channel=of_packages[each.channel][0] if each.channel else None).spec
        for each in packages
        if not is_platforms(each)
    } | {f"python {python.versions}"}
    return NormalisedSpec(
        conda=CondaPart(
            channels=channels, packages=tuple(sorted(specs)), cuda=accelerator == "cuda"
        ),
        requirements=normalise_requirements(outcome.requirements),
        constraints=normalise_requirements(_constraints(definition)),
        hashes=_hashes(definition),
        mends=tuple(sorted(outcome.mends)),
        warnings=(*_texts(exchanged), *(MENDS[mend] for mend in sorted(outcome.mends))),
    )


def settled(
    spec: NormalisedSpec,
    python: str,
    *,
    overrides: OverrideTable | None = None,
    accelerator: Accelerator = "cpu",
) -> NormalisedSpec:
    """A spec with a container, now that its image's ``python`` is known (3.11.2).

    Raises InvalidEnvironment env.strict.
    """
    wanted = EnvironmentDefinition(
        python=spec.python,
        pip_packages=spec.requirements,
        constraints=spec.constraints,
        hashes=spec.hashes,
        strict=bool(spec.container and spec.container.strict),
    )
    return normalise(
        wanted, available_pythons=(python,), overrides=overrides, accelerator=accelerator
    ).model_copy(update={"lock": spec.lock})


def env_id(
    spec: NormalisedSpec, *, platform: str, builder_version: str, base_image: str | None = None
) -> str:
    """Identity of a prepared environment: 40 hex digits.

    ``base_image``: the digest of what its image is laid on, None where there is no image.
    """
    content = spec.model_dump(mode="json", exclude={"warnings"})
    for younger in _YOUNGER:
        if not content[younger]:
            del content[younger]
    identity = {"schema": _SCHEMA, "platform": platform, "builder": builder_version, **content}
    if base_image is not None:
        identity["base_image"] = base_image
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:40]


class _Requirements(NamedTuple):
    all: tuple[Requirement, ...]
    exchanged: tuple[Substitution, ...]


def _pip(definition: EnvironmentDefinition) -> list[Requirement]:
    return [
        parse_requirement(text, f"pip_packages[{index}]")
        for index, text in enumerate(definition.pip_packages)
    ]


def _requirements(definition: EnvironmentDefinition) -> _Requirements:
    """Everything that is wanted, in the index's terms, and which conda packages became that."""
    wanted = _pip(definition)
    exchanged = _from_conda(definition)
    became = (Requirement(each.became) for each in exchanged if each.became)
    return _Requirements((*wanted, *became), exchanged)


def _constraints(definition: EnvironmentDefinition) -> list[Requirement]:
    return [
        parse_requirement(text, f"constraints[{index}]")
        for index, text in enumerate(definition.constraints)
    ]


def _hashes(definition: EnvironmentDefinition) -> dict[str, tuple[str, ...]]:
    found = {}
    for text, digests in definition.hashes.items():
        requirement = parse_requirement(text, "hashes")
        found[normalise_requirements([requirement])[0]] = tuple(sorted(set(digests)))
    return dict(sorted(found.items()))


def _conda_warning(wanted: _Requirements) -> Iterable[str]:
    names = sorted({Requirement(each.became).name for each in wanted.exchanged if each.became})
    if names:
        yield f"conda packages are installed from the Python package index here: {', '.join(names)}"
    yield from (str(each) for each in wanted.exchanged if not each.became)


def _container(
    definition: EnvironmentDefinition, table: OverrideTable
) -> tuple[Container | None, tuple[Substitution, ...]]:
    """What it stands on; None: the platform's base image, which some are exchanged for."""
    image, others = definition.image, (definition.dockerfile, definition.build_context)
    if (image, *others) == (None, None, None):
        return None, ()
    note = None if image is None else table.image_note(image)
    if note is not None and others == (None, None):
        return None, (Substitution(f"image {image}", "", note),)
    return container(image, *others, strict=definition.strict), ()


def _in_container(definition: EnvironmentDefinition, stands_on: Container) -> NormalisedSpec:
    if definition.user_managed:
        interpreter = definition.interpreter or "python3"
        return NormalisedSpec(user_managed=True, interpreter=interpreter, container=stands_on)
    wanted = _requirements(definition)
    _refuse_if_strict(definition, wanted.exchanged)
    return NormalisedSpec(
        python=definition.python,
        requirements=normalise_requirements(wanted.all),
        constraints=normalise_requirements(_constraints(definition)),
        hashes=_hashes(definition),
        container=stands_on,
        warnings=tuple(_conda_warning(wanted)),
    )


def _texts(substitutions: Iterable[Substitution]) -> tuple[str, ...]:
    return tuple(str(each) for each in substitutions)


def _refuse_if_strict(definition: EnvironmentDefinition, exchanged: Sequence[Substitution]) -> None:
    if definition.strict and exchanged:
        listed = "; ".join(_texts(exchanged))
        raise InvalidEnvironment(
            "env.strict",
            field="strict",
            got="true",
            hint=f"Strict mode, and this would be exchanged: {listed}. Write what can be had here, "
            "or leave strict mode.",
        )


def _conda_packages(definition: EnvironmentDefinition) -> Iterable[tuple[str, str, CondaPackage]]:
    """Each with its place and as it was written."""
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
    for where, text, package in _conda_packages(definition):
        requirement = index_requirement(package, where)
        if requirement is not None:
            why = "installed from the Python package index"
            found.append(Substitution(f"conda package {text}", str(requirement), why))
        elif package.name in CONDA_SYSTEM:
            why = "a system library; packages of the index bring their own, or it is the node's"
            found.append(Substitution(f"conda package {text}", "", why))
    return tuple(found)


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
