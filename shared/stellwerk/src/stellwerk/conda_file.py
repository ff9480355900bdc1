"""Conda environment files: reading the YAML.

Only plain data is read: no anchors, aliases, tags or templates, at most eight levels deep.
"""

import difflib
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Any

import yaml

from stellwerk.conda_package import parse_conda_package
from stellwerk.environment_requirement import (
    MAX_REQUIREMENTS,
    InvalidEnvironment,
    check_text,
    parse_requirement,
)

KEYS = ("name", "channels", "dependencies", "prefix", "variables")
_MAX_DEPTH = 8


@dataclass(frozen=True)
class CondaFile:
    """What a conda environment file says, its parts sorted out; ``python`` None: not mentioned."""

    python: str | None = None
    channels: tuple[str, ...] = ()
    conda_packages: tuple[str, ...] = ()
    pip_packages: tuple[str, ...] = ()
    variables: dict[str, str] = field(default_factory=dict)


def read_conda_yaml(text: str) -> CondaFile:
    """The content of a conda environment file.

    Raises InvalidEnvironment: env.syntax, env.too_large, env.field_unknown, and the codes of its
    packages (env.requirement, env.conda_package, env.index_option, ...).
    """
    data = _load(check_text(text, "conda file"))
    for key in data:
        if key not in KEYS:
            raise InvalidEnvironment(
                "env.field_unknown",
                field=str(key),
                got=str(key),
                hint=f"{_did_you_mean(str(key))}Known keys are {', '.join(KEYS)}.",
            )
    channels = _texts(data.get("channels"), "channels")
    conda, pip = _dependencies(data.get("dependencies"))
    python, packages = None, []
    for index, spec in enumerate(conda):
        package = parse_conda_package(spec, f"dependencies[{index}]")
        if package.name == "python":
            python = package.versions or package.own_versions or None
        else:
            packages.append(spec)
    return CondaFile(python, channels, tuple(packages), pip, _variables(data.get("variables")))


def _load(text: str) -> dict[Hashable, Any]:
    if "{{" in text or "{%" in text:
        raise _syntax("Templates ({{ or {%) are not evaluated; write the values themselves.")
    try:
        _check_events(text)
        data = yaml.load(text, Loader=_PlainLoader)  # noqa: S506 - a SafeLoader, see below
    except InvalidEnvironment:
        raise
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = str(getattr(error, "problem", None) or "not readable")
        raise _syntax(f"The YAML is broken: {problem}.", mark) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise _syntax("The YAML holds a value that cannot be read.") from error
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise _syntax(f"It must be a mapping with {', '.join(KEYS)}, not a {type(data).__name__}.")
    return data


def _check_events(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        mark = event.start_mark
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise _syntax("Anchors and aliases are not allowed; repeat the value.", mark)
        if tag := getattr(event, "tag", None):
            raise _syntax("Tags are not allowed; write plain values.", mark, tag)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _MAX_DEPTH:
            raise _syntax(f"Nested deeper than {_MAX_DEPTH} levels.", mark)


class _PlainLoader(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice, where YAML libraries keep the last silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen if isinstance(key, yaml.ScalarNode) else False:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key.value!r} is there twice", problem_mark=key.start_mark
                )
            seen.add(str(key.value))
        return super().construct_mapping(node, deep=deep)


def _dependencies(value: object) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if value is None:
        return (), ()
    if not isinstance(value, list):
        raise _wrong_type("dependencies", value, "a list")
    if len(value) > MAX_REQUIREMENTS:
        raise InvalidEnvironment(
            "env.too_large",
            field="dependencies",
            got=f"{len(value)} entries",
            hint=f"The limit is {MAX_REQUIREMENTS}.",
        )
    conda: list[str] = []
    pip: tuple[str, ...] = ()
    for index, entry in enumerate(value):
        if isinstance(entry, dict) and set(entry) == {"pip"}:
            pip += _pip_section(entry["pip"], f"dependencies[{index}].pip")
        elif isinstance(entry, str) and entry.strip():
            conda.append(entry.strip())
        else:
            raise _wrong_type(f"dependencies[{index}]", entry, "a package, or a mapping pip: [...]")
    return tuple(conda), pip


def _pip_section(value: object, where: str) -> tuple[str, ...]:
    entries = _texts(value, where)
    for index, entry in enumerate(entries):
        parse_requirement(entry, f"{where}[{index}]")
    return entries


def _texts(value: object, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list):
        raise _wrong_type(where, value, "a list")
    for index, entry in enumerate(value):
        if not isinstance(entry, str) or not entry.strip():
            raise _wrong_type(f"{where}[{index}]", entry, "text; put it in quotes")
    return tuple(entry.strip() for entry in value)


def _variables(value: object) -> dict[str, str]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong_type("variables", value, "a mapping of names to text")
    for name, content in value.items():
        if not isinstance(name, str) or isinstance(content, bool | None | list | dict):
            raise _wrong_type(f"variables.{name}", content, "text; put it in quotes")
    return {name: str(content) for name, content in value.items()}


def _did_you_mean(key: str) -> str:
    close = difflib.get_close_matches(key, KEYS, n=1)
    return f"Did you mean {close[0]}? " if close else ""


def _syntax(hint: str, mark: Any = None, got: str | None = None) -> InvalidEnvironment:
    """``mark`` is where. The line itself is not shown: it may hold a password."""
    place = f" line {mark.line + 1}, column {mark.column + 1}" if mark else ""
    return InvalidEnvironment("env.syntax", field=f"conda file{place}", got=got, hint=hint)


def _wrong_type(where: str, got: object, wanted: str) -> InvalidEnvironment:
    return InvalidEnvironment("env.syntax", field=where, got=str(got), hint=f"It must be {wanted}.")
