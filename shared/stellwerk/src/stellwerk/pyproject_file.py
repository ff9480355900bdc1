"""``pyproject.toml`` as an environment: what a project depends on, and what its ``uv.lock`` fixed.

Of the project file the standard tables count (``[project]``, ``[dependency-groups]``). The project
itself is not installed: a run's source folder is where its code comes from. The lock, if there is
one, says which versions and which files are used; it adds nothing that the project does not need.
"""

import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from packaging.utils import canonicalize_name

from stellwerk.environment_requirement import (
    MAX_REQUIREMENTS,
    InvalidEnvironment,
    check_text,
    parse_requirement,
)
from stellwerk.uv_lock_file import Locked, read_uv_lock

FILE = "pyproject.toml"
_DEEPEST = 100


@dataclass(frozen=True)
class PyProject:
    """What a project file, with its lock, asks for."""

    python: str | None
    packages: tuple[str, ...]
    constraints: tuple[str, ...] = ()
    hashes: dict[str, tuple[str, ...]] = field(default_factory=dict)


def read_pyproject(
    text: str, *, lock: str | None = None, extras: Sequence[str] = (), groups: Sequence[str] = ()
) -> PyProject:
    """The dependencies of a project with these extras and dependency groups.

    Raises InvalidEnvironment: env.syntax, env.dynamic, env.extra_unknown, env.group_unknown,
    env.index_option, env.option, env.direct_reference, and those of requirements and of the lock.
    """
    data = toml(text, FILE)
    project = data.get("project")
    if not isinstance(project, dict):
        raise InvalidEnvironment(
            "env.syntax",
            field=FILE,
            hint="The file needs the standard table [project] with its dependencies (PEP 621).",
        )
    _refuse_dynamic(project)
    reader = _Reader(project, data.get("dependency-groups"))
    wanted = [*reader.dependencies(), *reader.extras(extras), *reader.groups(groups)]
    tool = _table(_table(data.get("tool"), "tool").get("uv"), "tool.uv")
    _refuse_tool_settings(
        tool, {canonicalize_name(parse_requirement(t, w).name) for w, t in wanted}
    )
    if len(wanted) > MAX_REQUIREMENTS:
        raise InvalidEnvironment(
            "env.too_large",
            field=FILE,
            got=f"{len(wanted)} dependencies",
            hint=f"The limit is {MAX_REQUIREMENTS}.",
        )
    locked = Locked()
    if lock is not None:
        locked = read_uv_lock(lock, reader.name, reader.declared(), extras, groups)
    limits = _texts(tool.get("constraint-dependencies"), "tool.uv.constraint-dependencies")
    python = project.get("requires-python")
    return PyProject(
        python=None if python is None else str(python),
        packages=tuple(dict.fromkeys(text for _, text in wanted)),
        constraints=(*(text for _, text in limits), *locked.constraints),
        hashes=locked.hashes,
    )


def toml(text: str, name: str, limit: int | None = None) -> dict[str, Any]:
    """A TOML file's content. Raises InvalidEnvironment (env.syntax, env.too_large)."""
    try:
        return tomllib.loads(check_text(text, name, limit))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidEnvironment(
            "env.syntax", field=name, got=str(error) or "too deep", hint="The TOML is broken there."
        ) from error


class _Reader:
    """The tables of one project, entries with the place they stand at."""

    def __init__(self, project: Mapping[str, Any], groups: object) -> None:
        self.name = canonicalize_name(str(project.get("name", "")))
        self._dependencies = _texts(project.get("dependencies"), "project.dependencies")
        optional = _table(project.get("optional-dependencies"), "project.optional-dependencies")
        self._extras = {
            canonicalize_name(key): _texts(value, f"project.optional-dependencies.{key}")
            for key, value in optional.items()
        }
        table = _table(groups, "dependency-groups")
        self._groups = {canonicalize_name(key): value for key, value in table.items()}

    def dependencies(self) -> list[tuple[str, str]]:
        """What the project always needs."""
        return self._dependencies

    def declared(self) -> list[str]:
        """All requirements of the project, extras included, groups not."""
        listed = [*self._dependencies, *(each for extra in self._extras.values() for each in extra)]
        return [text for _, text in listed]

    def extras(
        self, names: Iterable[str], depth: int = 0, seen: set[str] | None = None
    ) -> Iterator[tuple[str, str]]:
        """What the extras need, each once; an extra may name others as ``project[other]``."""
        seen = set() if seen is None else seen
        for name in names:
            key = canonicalize_name(name)
            if key not in self._extras:
                raise _unknown("env.extra_unknown", "extra", name, self._extras)
            if depth >= _DEEPEST:
                raise _too_deep(f"project.optional-dependencies.{key}", key)
            if key in seen:
                continue
            seen.add(key)
            for where, text in self._extras[key]:
                requirement = parse_requirement(text, where)
                if canonicalize_name(requirement.name) == self.name:
                    yield from self.extras(sorted(requirement.extras), depth + 1, seen)
                else:
                    yield where, text

    def groups(
        self,
        names: Iterable[str],
        above: tuple[str, ...] = (),
        seen: set[str] | None = None,
    ) -> Iterator[tuple[str, str]]:
        """What the groups need, each once; a group may include others."""
        seen = set() if seen is None else seen
        for name in names:
            key = canonicalize_name(name)
            where = f"dependency-groups.{key}"
            if key not in self._groups:
                raise _unknown("env.group_unknown", "group", name, self._groups)
            if key in above:
                hint = "The group includes itself."
                raise InvalidEnvironment("env.syntax", field=where, got=key, hint=hint)
            if len(above) >= _DEEPEST:
                raise _too_deep(where, key)
            if key in seen:
                continue
            seen.add(key)
            entries = self._groups[key]
            for index, entry in enumerate(entries if isinstance(entries, list) else [entries]):
                if isinstance(entry, dict) and set(entry) == {"include-group"}:
                    included = [str(entry["include-group"])]
                    yield from self.groups(included, (*above, key), seen)
                else:
                    yield from _texts([entry], f"{where}[{index}]")


def _refuse_dynamic(project: Mapping[str, Any]) -> None:
    dynamic = project.get("dynamic", [])
    if not isinstance(dynamic, list):
        raise InvalidEnvironment(
            "env.syntax", field="project.dynamic", got=str(dynamic), hint="Not a list."
        )
    for name in ("dependencies", "optional-dependencies", "requires-python"):
        if name in dynamic:
            raise InvalidEnvironment(
                "env.dynamic",
                field="project.dynamic",
                got=name,
                hint="What a build computes cannot be read; write it under [project].",
            )


def _refuse_tool_settings(tool: Mapping[str, Any], wanted: set[str]) -> None:
    for name in ("index", "index-url", "extra-index-url", "find-links", "default-index"):
        if name in tool:
            raise InvalidEnvironment(
                "env.index_option",
                field=f"tool.uv.{name}",
                got=name,
                hint="Remove it: the operator of this installation chooses the package index.",
            )
    if "override-dependencies" in tool:
        raise InvalidEnvironment(
            "env.option",
            field="tool.uv.override-dependencies",
            got="override-dependencies",
            hint="Overrides are not possible; use constraint-dependencies, or pin the packages.",
        )
    for name in _table(tool.get("sources"), "tool.uv.sources"):
        if canonicalize_name(name) in wanted:
            raise InvalidEnvironment(
                "env.direct_reference",
                field=f"tool.uv.sources.{name}",
                got=name,
                hint="Packages come from the installation's index; name a released version.",
            )


def _table(value: object, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InvalidEnvironment("env.syntax", field=where, got=str(value), hint="Not a table.")
    return value


def _texts(value: object, where: str) -> list[tuple[str, str]]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise InvalidEnvironment("env.syntax", field=where, got=str(value), hint="Not a list.")
    found = []
    for index, text in enumerate(value):
        place = f"{where}[{index}]"
        if not isinstance(text, str):
            hint = "It must be a requirement, as text."
            raise InvalidEnvironment("env.syntax", field=place, got=str(text), hint=hint)
        parse_requirement(text, place)
        found.append((place, text))
    return found


def _too_deep(where: str, name: str) -> InvalidEnvironment:
    hint = f"Includes are at most {_DEEPEST} deep."
    return InvalidEnvironment("env.syntax", field=where, got=name, hint=hint)


def _unknown(code: str, kind: str, name: str, known: Iterable[str]) -> InvalidEnvironment:
    listed = ", ".join(sorted(known)) or "none"
    return InvalidEnvironment(
        code, field=kind, got=name, hint=f"The project's {kind}s are: {listed}."
    )
