"""The override table: what old requirements, base images and curated environments become.

The built-in one is ``overrides.yaml``; an operator's file of the same form is merged over it.
"""

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version
from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from stellwerk.errors import UserError

Accelerator = Literal["cpu", "cuda"]
Mend = Literal["keras-lr", "keras-modules"]


def _requirement(text: str) -> str:
    try:
        return str(Requirement(text))
    except InvalidRequirement as error:
        raise ValueError(f"{text!r} is no requirement") from error


def _specifiers(text: str) -> str:
    try:
        return str(SpecifierSet(text))
    except InvalidSpecifier as error:
        raise ValueError(f"{text!r} is no version range; write for example >=1.2,<2") from error


def _version(text: str) -> str:
    try:
        Version(text)
    except InvalidVersion as error:
        raise ValueError(f"{text!r} is no version") from error
    return text


def _pattern(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}") from error
    return text


Name = Annotated[str, AfterValidator(canonicalize_name)]
RequirementText = Annotated[str, AfterValidator(_requirement)]
Range = Annotated[str, AfterValidator(_specifiers)]
VersionText = Annotated[str, AfterValidator(_version)]
Pattern = Annotated[str, AfterValidator(_pattern)]
RequirementTemplate = str  # {version} stands in it


MENDS: dict[Mend, str] = {
    "keras-lr": "Keras 2.11 to 2.15 take lr= and ignore it, and refuse decay=; in this environment "
    "lr sets learning_rate and decay gives the optimizer of older Keras",
    "keras-modules": "Keras has no keras.utils.np_utils, keras.layers.core and the like since "
    "2.13; in this environment such names lead to where things are now",
}
"""What is put right where a substitute means something else, for the log and the run's warnings."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Sdk(_Part):
    """What the SDK needs inside a run."""

    python: Range
    requires: list[RequirementText]


class Provided(_Part):
    """A distribution whose content the platform brings."""

    requires: list[RequirementText] = []
    extras: dict[Name, list[RequirementText]] = {}
    note: str | None = None


class Row(_Part):
    """A package on one Python: from ``oldest`` on it can be installed."""

    oldest: VersionText
    use: Range | None = None
    needs: dict[Name, Range] = {}
    fits: dict[Name, Range] = {}
    mends: dict[Mend, VersionText] = {}
    note: str | None = None


class Package(_Part):
    """A package under all its names; ``pythons``: rows by Python version (3.11)."""

    called: list[Name] = []
    discontinued: list[Name] = []
    instead: dict[Accelerator, RequirementText] = {}
    notes: dict[VersionText, str] = {}
    pythons: dict[str, Row]


class OverrideTable(_Part):
    """All of it; ``overrides.yaml`` says what each part means."""

    sdk: Sdk
    provided: dict[str, Provided]
    packages: dict[Name, Package]
    images: dict[str, str]
    curated: dict[Pattern, list[RequirementTemplate]]
    curated_names: list[str]

    def provides(self, name: str) -> Provided | None:
        """The entry for a distribution that the platform stands for: its own, or a pattern's."""
        wanted = canonicalize_name(name)
        if wanted in self.provided:
            return self.provided[wanted]
        fitting = (key for key in self.provided if "*" in key and fnmatchcase(wanted, key))
        return self.provided[key] if (key := next(fitting, None)) else None

    def package(self, name: str) -> tuple[str, Package] | None:
        """The package that goes by ``name``, with its principal name."""
        wanted = canonicalize_name(name)
        for principal, package in self.packages.items():
            if wanted == principal or wanted in package.called:
                return principal, package
        return None

    def image_note(self, image: str) -> str | None:
        """Why the platform's base image takes the place of ``image``; None: it does not."""
        notes = (note for glob, note in self.images.items() if fnmatchcase(image, glob))
        return next(notes, None)

    def curated_packages(self, name: str) -> tuple[str, ...] | None:
        """Requirements of the curated environment called ``name``; None: there is none."""
        for pattern, requirements in self.curated.items():
            if found := re.fullmatch(pattern, name, re.IGNORECASE):
                version = found.groupdict().get("version") or ""
                return tuple(text.replace("{version}", version) for text in requirements)
        return None

    def curated_name(self, name: str) -> str:
        """The one spelling of a curated environment's name."""
        known = {each.lower(): each for each in self.curated_names}
        return known.get(name.lower(), name.lower())


@cache
def builtin() -> OverrideTable:
    """The table that comes with Stellwerk."""
    text = resources.files("stellwerk").joinpath("overrides.yaml").read_text("utf-8")
    return OverrideTable.model_validate(_yaml(text))


def with_file(path: Path) -> OverrideTable:
    """The built-in table with an operator's file merged over it.

    Raises UserError that names the file, the entry and what is wrong with it.
    """
    try:
        content = _yaml(path.read_text("utf-8"))
    except (OSError, UnicodeError, ValueError) as error:
        raise _bad_file(path, str(error)) from error
    if not isinstance(content, dict):
        raise _bad_file(path, f"it must be a mapping with {', '.join(OverrideTable.model_fields)}")
    base = builtin().model_dump(exclude_unset=True)
    try:
        return OverrideTable.model_validate(_merged(base, content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _bad_file(path, f"{where}: {first['msg']}; got {first['input']!r:.80}") from error


def _merged(base: dict[str, Any], over: Mapping[Any, Any]) -> dict[str, Any]:
    """Entry by entry: an entry replaces the one of the same name and comes before the others."""
    result = dict(base)
    for part, entries in over.items():
        old = base.get(part)
        if isinstance(old, dict) and isinstance(entries, dict):
            both = {**entries, **{name: each for name, each in old.items() if name not in entries}}
            result[part] = {name: each for name, each in both.items() if each is not None}
        elif isinstance(old, list) and isinstance(entries, list):
            result[part] = [*entries, *(each for each in old if each not in entries)]
        else:
            result[part] = entries
    return result


def _yaml(text: str) -> Any:
    import yaml  # noqa: PLC0415 - costly to import, and only the builder needs it

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        raise ValueError(f"{line}{getattr(error, 'problem', None) or 'no YAML'}") from error


def _bad_file(path: Path, reason: str) -> UserError:
    return UserError(
        f"STELLWERK_BUILD_OVERRIDES: {path} cannot be used: {reason}",
        code="settings.overrides",
        field="STELLWERK_BUILD_OVERRIDES",
    )
