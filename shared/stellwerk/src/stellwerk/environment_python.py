"""Which of a machine's Python interpreters an environment gets. Pure."""

import re
from collections.abc import Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from stellwerk.environment_requirement import InvalidEnvironment

_PLAIN_VERSION = re.compile(r"^\d+(\.\d+){0,2}$")


def choose_python(
    wanted: str | None, available: Sequence[str], *, sdk: str | None = None
) -> tuple[str, str]:
    """One of ``available`` (preferred first), and why it is not what was wanted ("": it is).

    ``sdk``: versions that the SDK runs on, if the environment has to hold it.
    Raises InvalidEnvironment (env.python) where there is no interpreter at all.
    """
    if not available:
        raise InvalidEnvironment(
            "env.python",
            field="python",
            got=wanted or "any",
            hint="This machine has no usable Python interpreter; ask its operator to install one.",
        )
    suitable = SpecifierSet(sdk or "")
    usable = [version for version in available if suitable.contains(version, prereleases=True)]
    usable = usable or list(available)
    if wanted is None:
        return usable[0], ""
    allowed = python_range(wanted)
    for version in usable:
        if allowed.contains(version, prereleases=True):
            return version, ""
    nearest = min(usable, key=lambda version: _distance(version, allowed))
    if any(allowed.contains(version, prereleases=True) for version in available):
        return nearest, f"the SDK inside a run needs Python {sdk}"
    have = f"this machine has {', '.join(usable)}"
    return nearest, f"the SDK inside a run needs Python {sdk}; {have}" if sdk else have


def python_range(text: str) -> SpecifierSet:
    """``text`` as a set of versions: 3.11 means every 3.11, 3.6.2 exactly that, or a range.

    Raises InvalidEnvironment (env.python) for anything else.
    """
    compact = text.replace(" ", "")
    if _PLAIN_VERSION.match(compact):
        compact = f"=={compact}" if compact.count(".") == 2 else f"=={compact}.*"
    try:
        allowed = SpecifierSet(compact)
    except InvalidSpecifier:
        allowed = SpecifierSet()
    if not list(allowed) or any(each.operator == "===" for each in allowed):
        raise InvalidEnvironment(
            "env.python",
            field="python",
            got=text,
            hint="Give a version such as 3.11 or a range such as >=3.10,<3.13.",
        )
    return allowed


def shortest(python: str) -> str:
    """The way people write it: 3.8 for ==3.8.*, anything else unchanged."""
    plain = python.removeprefix("==").removesuffix(".*")
    return plain if _PLAIN_VERSION.match(plain) else python


def conda_name(python: str | None) -> list[str]:
    """The entry of a conda file, ``python=3.8`` or ``python>=3.11``; none where none is wanted."""
    if not python:
        return []
    return [f"python{python}" if python[0] in "=<>!~" else f"python={python}"]


def _distance(version: str, allowed: SpecifierSet) -> tuple[int, int]:
    """Minor versions between ``version`` and the nearest one named in ``allowed``; newer first."""
    have = Version(version)
    named = [Version(each.version.removesuffix(".*")) for each in allowed]
    steps = (100 * abs(have.major - each.major) + abs(have.minor - each.minor) for each in named)
    return min(steps), -have.minor
