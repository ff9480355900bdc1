"""Which versions a set of specifiers leaves open, as one interval. Pure.

Only what bounds from below or above counts; ``!=`` takes single versions out and is ignored.
"""

from typing import NamedTuple

from packaging.specifiers import Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

_Edge = tuple[Version, int]  # the version and whether it lies below the edge (1) or above it (0)


class Interval(NamedTuple):
    """From ``low`` (None: the beginning) to ``high`` (None: no end)."""

    low: _Edge | None
    high: _Edge | None


def interval(specifiers: SpecifierSet) -> Interval:
    """Everything between the narrowest bounds of ``specifiers``."""
    low: _Edge | None = None
    high: _Edge | None = None
    for each in specifiers:
        bounds = _bounds(each)
        low = max(filter(None, (low, bounds.low)), default=None)
        high = min(filter(None, (high, bounds.high)), default=None)
    return Interval(low, high)


def overlap(first: SpecifierSet, second: SpecifierSet) -> bool:
    """Whether some version satisfies the bounds of both."""
    both = interval(first & second)
    return both.low is None or both.high is None or both.low < both.high


def reaches(specifiers: SpecifierSet, oldest: str) -> bool:
    """Whether ``specifiers`` allow a version from ``oldest`` on."""
    return overlap(specifiers, SpecifierSet(f">={oldest}"))


def minor_of(version: str) -> str:
    """``==1.23.*`` for 1.23.2."""
    release = (*Version(version).release, 0)
    return f"=={release[0]}.{release[1]}.*"


def _bounds(specifier: Specifier) -> Interval:
    operator, text = specifier.operator, specifier.version
    prefix = text.endswith(".*")
    try:
        version = Version(text.removesuffix(".*"))
    except InvalidVersion:  # === compares texts, whatever they are
        return Interval(None, None)
    at, after = (version, 0), (version, 1)
    if operator in {"==", "==="}:
        return Interval(at, (_next(version, len(version.release)), 0) if prefix else after)
    if operator == "~=":
        return Interval(at, (_next(version, len(version.release) - 1), 0))
    lows = {">=": at, ">": after}
    highs = {"<": at, "<=": after}
    return Interval(lows.get(operator), highs.get(operator))


def _next(version: Version, parts: int) -> Version:
    """The first version that no longer begins with the first ``parts`` numbers."""
    release = version.release[:parts]
    return Version(".".join(str(part) for part in (*release[:-1], release[-1] + 1)))
