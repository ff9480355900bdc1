"""What an environment is: the user's definition, its normal form, and its identity. Pure.

``from_conda_yaml``, ``from_requirements``, ``from_pyproject`` and ``from_packages`` read the forms
users have;
``normalise`` turns a definition into the form that decides what is installed on a machine;
``env_id`` names that form, so that equal environments are built once. Order, case, spelling,
comments and blank lines of a definition never change the id; any requirement does. Environment
variables and the environment's name are no part of it.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import replace

from packaging.requirements import Requirement
from pydantic import BaseModel, ConfigDict

from stellwerk.conda_package import is_platforms
from stellwerk.conda_part import (
    CondaPart,
    KnownChannels,
    choose_channel,
    choose_channels,
    choose_conda_python,
)
from stellwerk.environment_container import Container, container
from stellwerk.environment_definition import EnvironmentDefinition
from stellwerk.environment_forms import (
    from_conda_yaml,
    from_dict,
    from_packages,
    from_pyproject,
    from_requirements,
)
from stellwerk.environment_python import choose_python
from stellwerk.environment_requirement import InvalidEnvironment, normalise_requirements
from stellwerk.environment_wanted import (
    check,
    conda_packages,
    conda_warnings,
    constraints_of,
    hashes_of,
    pip_packages,
    wanted_of,
    wants_conda,
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
    wanted = wanted_of(definition)
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
        constraints=normalise_requirements(constraints_of(definition)),
        hashes=hashes_of(definition),
        mends=tuple(sorted(outcome.mends)),
        warnings=(
            *conda_warnings(wanted),
            *_texts(exchanged),
            *(MENDS[mend] for mend in sorted(outcome.mends)),
        ),
    )


def _with_conda(
    definition: EnvironmentDefinition,
    available_pythons: Sequence[str],
    table: OverrideTable,
    accelerator: Accelerator,
    known: KnownChannels,
    images: Sequence[Substitution],
) -> NormalisedSpec:
    """The conda packages as they are, and on top of them the pip packages."""
    found = [(where, package) for where, _, package in conda_packages(definition)]
    packages = [package for _, package in found]
    ours = [
        Requirement(each.name + (each.versions or "")) for each in packages if is_platforms(each)
    ]
    wanted = [*pip_packages(definition), *ours]
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
        constraints=normalise_requirements(constraints_of(definition)),
        hashes=hashes_of(definition),
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
    wanted = wanted_of(definition)
    _refuse_if_strict(definition, wanted.exchanged)
    return NormalisedSpec(
        python=definition.python,
        requirements=normalise_requirements(wanted.all),
        constraints=normalise_requirements(constraints_of(definition)),
        hashes=hashes_of(definition),
        container=stands_on,
        warnings=tuple(conda_warnings(wanted)),
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
