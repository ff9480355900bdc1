"""The packages of an environment, changeable, with the v1 SDK's names."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import yaml

from stellwerk.environment_python import conda_name
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    from_conda_yaml,
    from_dict,
)
from stellwerk.errors import UserError

_PYTHON = re.compile(r"^\s*(\S+::)?python(?![\w.-])\s*(=(?=\d))?(?P<version>.*)$")


class CondaDependencies:
    """Python version, channels, conda and pip packages."""

    def __init__(self, conda_dependencies_file_path: str | None = None) -> None:
        self.python_version: str | None = None
        self._channels: list[str] = []
        self._conda: list[str] = []
        self._pip: list[str] = []
        if conda_dependencies_file_path is not None:
            read = definition_from(read_text(conda_dependencies_file_path))
            self._take(read)

    @classmethod
    def create(
        cls,
        pip_indexurl: str | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_packages: Sequence[str] | None = None,
        python_version: str | None = None,
        pin_sdk_version: bool = True,
    ) -> Self:
        """Dependencies from lists. ``pin_sdk_version`` has no meaning here."""
        del pin_sdk_version
        if pip_indexurl:
            raise UserError(
                "pip_indexurl: a package index is set by the platform's operator, not by an "
                "environment; leave it out",
                code="unsupported",
                field="pip_indexurl",
            )
        created = cls()
        created.python_version = python_version
        for package in conda_packages or ():
            created.add_conda_package(package)
        for package in pip_packages or ():
            created.add_pip_package(package)
        return created

    @classmethod
    def of(cls, definition: EnvironmentDefinition) -> Self:
        """The changeable form of a definition."""
        created = cls()
        created._take(definition)
        return created

    def add_pip_package(self, pip_package: str) -> None:
        """Add a requirement such as ``keras>=3.10``."""
        if pip_package not in self._pip:
            self._pip.append(pip_package)

    def add_conda_package(self, conda_package: str) -> None:
        """Add a conda package such as ``numpy=2.0``; ``python=3.11`` sets the version."""
        if python := _PYTHON.match(conda_package):
            self.python_version = python["version"].strip() or None
            return
        if conda_package not in self._conda:
            self._conda.append(conda_package)

    def add_channel(self, channel: str) -> None:
        """Add a conda channel."""
        if channel not in self._channels:
            self._channels.append(channel)

    def set_python_version(self, version: str) -> None:
        """Ask for a Python version such as ``3.11``."""
        self.python_version = version

    @property
    def conda_channels(self) -> list[str]:
        """The channels, in order."""
        return list(self._channels)

    @property
    def conda_packages(self) -> list[str]:
        """The conda packages, in order."""
        return list(self._conda)

    @property
    def pip_packages(self) -> list[str]:
        """The pip packages, in order."""
        return list(self._pip)

    def serialize_to_string(self) -> str:
        """A conda environment file."""
        dependencies: list[Any] = [*conda_name(self.python_version), *self._conda]
        if self._pip:
            dependencies.append({"pip": list(self._pip)})
        content: dict[str, Any] = {"channels": self._channels} if self._channels else {}
        return yaml.safe_dump({**content, "dependencies": dependencies}, sort_keys=False)

    def save_to_file(self, base_directory: str, conda_file_path: str | None = None) -> str:
        """Write the file and return its name relative to ``base_directory``."""
        name = conda_file_path or "conda_dependencies.yml"
        Path(base_directory, name).write_text(self.serialize_to_string(), encoding="utf-8")
        return name

    def definition(self, **more: Any) -> EnvironmentDefinition:
        """As an environment definition. Raises UserError naming the bad requirement."""
        read = definition_from(self.serialize_to_string())
        try:
            return from_dict({**read.model_dump(), **more})
        except InvalidEnvironment as error:
            raise invalid(error) from error

    def _take(self, definition: EnvironmentDefinition) -> None:
        self.python_version = definition.python
        self._channels = list(definition.channels)
        self._conda = list(definition.conda_packages)
        self._pip = list(definition.pip_packages)


def read_text(path: str) -> str:
    """A small text file that the user named. Raises UserError."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except (OSError, UnicodeError) as error:
        raise UserError(
            f"file_path: cannot read {path}: {error}", code="file.unreadable", field="file_path"
        ) from error


def definition_from(conda_yaml: str) -> EnvironmentDefinition:
    """A definition from a conda file. Raises UserError."""
    try:
        return from_conda_yaml(conda_yaml)
    except InvalidEnvironment as error:
        raise invalid(error) from error


def invalid(error: InvalidEnvironment) -> UserError:
    """The SDK's error for a definition that cannot be used."""
    return UserError(str(error), code=error.code, field=error.field)
