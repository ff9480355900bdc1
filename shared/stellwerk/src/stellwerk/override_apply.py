"""Exchanges requirements that cannot be installed for the nearest that can. Pure.

Only what no release satisfies on the chosen Python is exchanged; a range that reaches an
installable release stays as it is.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

from stellwerk.override_table import Accelerator, Mend, OverrideTable, Package, Provided, Row
from stellwerk.version_ranges import minor_of, overlap, reaches


class Substitution(NamedTuple):
    """One exchange: ``was`` as it was written, ``became`` ("" for nothing), and why."""

    was: str
    became: str
    why: str

    def __str__(self) -> str:
        return f"{self.was} -> {self.became or 'left out'}: {self.why}"


@dataclass
class Outcome:
    """Requirements that can be installed, what was exchanged, and which mends that calls for."""

    requirements: list[Requirement] = field(default_factory=list)
    substitutions: list[Substitution] = field(default_factory=list)
    mends: set[Mend] = field(default_factory=set)


class _Companion(NamedTuple):
    """``package`` has to lie in ``versions``, because of ``reason``; ``added`` if nobody asks."""

    package: str
    versions: str
    reason: str
    added: bool


def needs_sdk(requirements: Iterable[Requirement], table: OverrideTable) -> bool:
    """Whether one of ``requirements`` is exchanged for the SDK, which wants a newer Python."""
    return any(table.provides(each.name) is not None for each in requirements)


def substitute(
    requirements: Sequence[Requirement],
    *,
    python: str,
    table: OverrideTable,
    accelerator: Accelerator = "cpu",
) -> Outcome:
    """``requirements`` as they can be installed on ``python`` (3.11.7)."""
    return _Exchange(python, table, accelerator).run(requirements)


class _Exchange:
    def __init__(self, python: str, table: OverrideTable, accelerator: Accelerator) -> None:
        release = Version(python).release
        self._minor = ".".join(str(part) for part in release[:2])
        self._marker_names = {"python_version": self._minor, "python_full_version": python}
        self._table, self._accelerator = table, accelerator
        self._outcome = Outcome()
        self._companions: list[_Companion] = []

    def run(self, requirements: Sequence[Requirement]) -> Outcome:
        """Provided names first, then packages, then what has to agree with the exchanged."""
        provided = [each for each in requirements if self._table.provides(each.name)]
        for each in requirements:
            if each not in provided:
                self._outcome.requirements.append(self._package(each))
        for companion in self._companions:
            self._agree(companion)
        for each in provided:
            self._provide(each)
        return self._outcome

    def _package(self, wanted: Requirement) -> Requirement:
        principal, package, row = self._row(wanted)
        if package is None or row is None or not self._applies(wanted):
            return wanted
        possible = reaches(wanted.specifier, row.oldest)
        discontinued = canonicalize_name(wanted.name) in package.discontinued
        if possible and not discontinued:
            return wanted
        versions = str(wanted.specifier) if possible else row.use or minor_of(row.oldest)
        became = self._named(principal, package, wanted, versions)
        reason = f"{wanted.name} is discontinued"
        if not possible:
            reason = f"on Python {self._minor} {principal} begins at {row.oldest}"
            self._bring(f"{principal}{versions}", row)
        notes = [row.note] if row.note and not possible else []
        notes += [note for below, note in package.notes.items() if _lies_below(wanted, below)]
        self._outcome.mends |= {
            mend for mend, below in row.mends.items() if not possible and _lies_below(wanted, below)
        }
        return self._exchanged(wanted, became, "; ".join([reason, *notes]))

    def _bring(self, reason: str, row: Row) -> None:
        for added, companions in ((True, row.needs), (False, row.fits)):
            for package, versions in companions.items():
                self._companions.append(_Companion(package, versions, reason, added))

    def _agree(self, companion: _Companion) -> None:
        """Make every requirement of the companion's package agree; add one if there is none."""
        wanted, found = SpecifierSet(companion.versions), False
        for index, each in enumerate(self._outcome.requirements):
            if self._principal(each.name) != companion.package or not self._applies(each):
                continue
            found = True
            both = Requirement(str(each))
            both.specifier = each.specifier & wanted
            if not overlap(each.specifier, wanted):
                both.specifier = wanted
                self._exchanged(each, both, f"to go with {companion.reason}")
            if companion.added or both.specifier == wanted:
                self._outcome.requirements[index] = both
        if companion.added and not found:
            package = self._table.packages.get(companion.package)
            name = (package and package.instead.get(self._accelerator)) or companion.package
            self._outcome.requirements.append(Requirement(f"{name}{companion.versions}"))

    def _provide(self, wanted: Requirement) -> None:
        entry = self._table.provides(wanted.name)
        assert entry is not None  # noqa: S101 - only those are passed
        why = "the platform brings it, its SDK needs these"
        dropped = [text for text in self._parts(wanted, entry) if not self._add(Requirement(text))]
        if dropped:
            why += f" (and {', '.join(dropped)}, which other pins rule out: there is only Run.log)"
        if entry.note:
            why += f"; {entry.note}"
        became = ", ".join(text for text in self._parts(wanted, entry) if text not in dropped)
        self._outcome.substitutions.append(Substitution(_spelled(wanted), became, why))

    def _parts(self, wanted: Requirement, entry: Provided) -> list[str]:
        extras = {canonicalize_name(extra) for extra in wanted.extras}
        chosen = [
            text for extra, parts in entry.extras.items() if extra in extras for text in parts
        ]
        return list(dict.fromkeys([*self._table.sdk.requires, *entry.requires, *chosen]))

    def _add(self, part: Requirement) -> bool:
        """Add a part of the SDK unless the user's own pins rule it out."""
        name = canonicalize_name(part.name)
        same = [each for each in self._outcome.requirements if canonicalize_name(each.name) == name]
        if not all(overlap(each.specifier, part.specifier) for each in same):
            return False
        if part not in self._outcome.requirements:
            self._outcome.requirements.append(part)
        return True

    def _row(self, wanted: Requirement) -> tuple[str, Package | None, Row | None]:
        found = self._table.package(wanted.name)
        if found is None:
            return canonicalize_name(wanted.name), None, None
        return found[0], found[1], found[1].pythons.get(self._minor)

    def _principal(self, name: str) -> str:
        found = self._table.package(name)
        return found[0] if found else canonicalize_name(name)

    def _named(
        self, principal: str, package: Package, wanted: Requirement, versions: str
    ) -> Requirement:
        became = Requirement(f"{package.instead.get(self._accelerator, principal)}{versions}")
        became.extras |= wanted.extras
        became.marker = wanted.marker
        return became

    def _exchanged(self, was: Requirement, became: Requirement, why: str) -> Requirement:
        if str(was) != str(became):
            self._outcome.substitutions.append(Substitution(_spelled(was), _spelled(became), why))
        return became

    def _applies(self, wanted: Requirement) -> bool:
        names: Mapping[str, str] = {**self._marker_names, "extra": ""}
        return wanted.marker is None or wanted.marker.evaluate(dict(names))


def _lies_below(wanted: Requirement, version: str) -> bool:
    """Whether every version that ``wanted`` allows is older than ``version``."""
    return not reaches(wanted.specifier, version)


def _spelled(requirement: Requirement) -> str:
    """Without the marker, which says nothing about the exchange."""
    text = Requirement(str(requirement))
    text.marker = None
    return str(text)
