"""Which of a machine's Python interpreters an environment gets. Pure."""

import re
from collections.abc import Sequence

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from stellwerk.environment_requirement import InvalidEnvironment

_PLAIN_VERSION = re.compile(r"^\d+(\.\d+){0,2}$")


def choose_python(
    wanted: str | None, available: Sequence[str], *, strict: bool = False
) -> tuple[str, str | None]:
    """One of ``available`` (preferred first), and a warning if it is not what was wanted.

    Raises InvalidEnvironment (env.python) where nothing fits and ``strict`` forbids the nearest.
    """
    if not available:
        raise InvalidEnvironment(
            "env.python",
            field="python",
            got=wanted or "any",
            hint="This machine has no usable Python interpreter; ask its operator to install one.",
        )
    if wanted is None:
        return available[0], None
    allowed = python_range(wanted)
    for version in available:
        if allowed.contains(version, prereleases=True):
            return version, None
    has = ", ".join(available)
    if strict:
        raise InvalidEnvironment(
            "env.python",
            field="python",
            got=wanted,
            hint=f"Strict mode, and this machine has only {has}. Choose one of them.",
        )
    nearest = min(available, key=lambda version: _distance(version, allowed))
    return nearest, (
        f"Python {wanted} is not on this machine (it has {has}); {nearest} is used instead. "
        "Pins made for the other version may not exist for this one."
    )


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


def _distance(version: str, allowed: SpecifierSet) -> tuple[int, int]:
    """Minor versions between ``version`` and the nearest one named in ``allowed``; newer first."""
    have = Version(version)
    named = [Version(each.version.removesuffix(".*")) for each in allowed]
    steps = (100 * abs(have.major - each.major) + abs(have.minor - each.minor) for each in named)
    return min(steps), -have.minor
