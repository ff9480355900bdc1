"""The v1 SDK's CondaDependencies: Stellwerk's, with v1's defaults and the rest of its methods."""

from collections.abc import Sequence
from typing import Self

from packaging.utils import canonicalize_name

from azureml.exceptions import UserErrorException
from stellwerk import conda_dependencies as native

DEFAULT_PYTHON = ">=3.11"
"""What a definition that names no Python gets: the platform's own, which the SDK runs on."""
DEFAULT_PIP = "azureml-defaults"
_PINNED = "~=1.61.0"


class CondaDependencies(native.CondaDependencies):
    """Python version, channels, conda and pip packages; new ones hold ``azureml-defaults``."""

    def __init__(
        self,
        conda_dependencies_file_path: str | None = None,
        _underlying_structure: object = None,
    ) -> None:
        super().__init__(conda_dependencies_file_path)
        if conda_dependencies_file_path is None:
            self.python_version = DEFAULT_PYTHON
            self._channels = ["anaconda", "conda-forge"]
            self._pip = [DEFAULT_PIP]

    @classmethod
    def create(
        cls,
        pip_indexurl: str | None = None,
        pip_packages: Sequence[str] | None = None,
        conda_packages: Sequence[str] | None = None,
        python_version: str | None = None,
        pin_sdk_version: bool = True,
    ) -> Self:
        """Dependencies from lists, ``azureml-*`` pinned to the followed version if asked for."""
        created = super().create(
            pip_indexurl, pip_packages, conda_packages, python_version, pin_sdk_version
        )
        created.python_version = created.python_version or DEFAULT_PYTHON
        if pin_sdk_version:
            created.set_pip_requirements([_pinned(each) for each in created.pip_packages])
        return created

    def get_python_version(self) -> str | None:
        """The version asked for."""
        return self.python_version

    def remove_pip_package(self, pip_package: str) -> None:
        """Take a package out, whatever its version."""
        self._pip = [each for each in self._pip if not _same(each, pip_package)]

    def remove_conda_package(self, conda_package: str) -> None:
        """Take a package out, whatever its version."""
        self._conda = [each for each in self._conda if not _same(each, conda_package)]

    def remove_channel(self, channel: str) -> None:
        """Take a channel out."""
        self._channels = [each for each in self._channels if each != channel]

    def add_tensorflow_conda_package(
        self, core_type: str = "cpu", version: str | None = None
    ) -> None:
        """Add TensorFlow for ``cpu`` or ``gpu``."""
        self.add_conda_package(_tensorflow(core_type) + (f"={version}" if version else ""))

    def add_tensorflow_pip_package(
        self, core_type: str = "cpu", version: str | None = None
    ) -> None:
        """Add TensorFlow for ``cpu`` or ``gpu``."""
        self.add_pip_package(_tensorflow(core_type) + (f"=={version}" if version else ""))

    def set_pip_requirements(self, pip_requirements: Sequence[str]) -> None:
        """Replace the pip packages."""
        self._pip = list(pip_requirements)

    def set_pip_index_url(self, index_url: str) -> None:
        """Refused: the package index is the operator's."""
        raise _operators("index_url", index_url)

    def set_pip_option(self, pip_option: str) -> None:
        """Refused: options of the installer are the operator's."""
        raise _operators("pip_option", pip_option)

    @property
    def pip_options(self) -> list[str]:
        """None are possible."""
        return []


def _name(package: str) -> str:
    bare = package.rpartition("::")[2]
    for mark in "=<>!~ [;":
        bare = bare.partition(mark)[0]
    return canonicalize_name(bare)


def _same(package: str, other: str) -> bool:
    return _name(package) == _name(other)


def _pinned(package: str) -> str:
    bare = not any(mark in package for mark in "=<>!~;@")
    return f"{package}{_PINNED}" if bare and _name(package).startswith("azureml-") else package


def _tensorflow(core_type: str) -> str:
    names = {"cpu": "tensorflow", "gpu": "tensorflow-gpu"}
    if core_type not in names:
        raise UserErrorException(f"core_type: got {core_type!r}; give 'cpu' or 'gpu'")
    return names[core_type]


def _operators(field: str, _got: str) -> UserErrorException:
    return UserErrorException(
        f"{field}: where packages come from, and how they are installed, is set by the platform's "
        "operator, not by an environment; leave it out"
    )
