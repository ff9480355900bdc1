"""The v1 SDK's Environment: Stellwerk's, with v1's sections, defaults and files."""

import json
import shutil
from pathlib import Path
from typing import Any, Self

from azureml.core._environment_sections import (
    DEFAULT_CPU_IMAGE,
    DEFAULT_GPU_IMAGE,
    DatabricksSection,
    DockerSection,
    PythonSection,
    SparkPackage,
    SparkSection,
)
from azureml.core._section import Section
from azureml.core.conda_dependencies import DEFAULT_PYTHON, CondaDependencies
from azureml.core.container_registry import ContainerRegistry
from azureml.exceptions import UserErrorException
from stellwerk import environment as native
from stellwerk.docker_build_context import DockerBuildContext
from stellwerk.environment_python import conda_name
from stellwerk.environment_spec import EnvironmentDefinition, from_packages
from stellwerk.errors import NotFoundError
from stellwerk.override_table import builtin
from stellwerk.workspace import Workspace

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "CondaDependencies",
    "ContainerRegistry",
    "DatabricksSection",
    "DockerBuildContext",
    "DockerSection",
    "Environment",
    "PythonSection",
    "SparkPackage",
    "SparkSection",
]

DEFAULT_NAME = "default-environment"
_FILE, _CONDA_FILE = "azureml_environment.json", "conda_dependencies.yml"


class Environment(Section, native.Environment):
    """What a script needs to run; changeable until it is registered."""

    __slots__ = ("databricks", "docker", "inferencing_stack_version", "r", "spark")

    def __init__(self, name: str) -> None:
        self.docker = DockerSection()  # first: image and dockerfile are its
        super().__init__(name)
        self.python: PythonSection = PythonSection()
        self.environment_variables = {"EXAMPLE_ENV_VAR": "EXAMPLE_VALUE"}
        self.spark = SparkSection()
        self.databricks = DatabricksSection()
        self.r: object = None
        self.inferencing_stack_version: str | None = None

    def __repr__(self) -> str:
        return json.dumps(self.as_json(), indent=4)

    @classmethod
    def get(
        cls,
        workspace: Workspace,
        name: str,
        version: str | int | None = None,
        label: str | None = None,
    ) -> Self:
        """A registered or curated environment; None is the latest version.

        Raises Exception where there is none.
        """
        del label
        try:
            return super().get(workspace, name, version)
        except NotFoundError as error:
            raise Exception(  # noqa: TRY002 - v1 raises nothing narrower
                f"Error retrieving the environment definition. Code: 404\n: {error.message}"
            ) from error

    @classmethod
    def list(cls, workspace: Workspace, *, curated: bool = False) -> dict[str, Self]:
        """The latest version of every environment by name, curated ones included or alone."""
        found = {name: cls._curated(name) for name in builtin().curated_names}
        found |= super().list(workspace, curated=True)
        return found if curated else found | super().list(workspace)

    @classmethod
    def from_conda_specification(cls, name: str, file_path: str) -> Self:
        """From a conda environment file; one without a Python gets the platform's."""
        made = super().from_conda_specification(name, file_path)
        conda = made.python.conda_dependencies
        conda.python_version = conda.python_version or DEFAULT_PYTHON
        return made

    @classmethod
    def from_pip_requirements(
        cls, name: str, file_path: str, pip_version: str | None = None
    ) -> Self:
        """From a requirements.txt."""
        del pip_version
        made = super().from_pip_requirements(name, file_path)
        made.python.conda_dependencies.python_version = DEFAULT_PYTHON
        return made

    @classmethod
    def from_docker_image(
        cls,
        name: str,
        image: str,
        container_registry: ContainerRegistry | None = None,
        conda_specification: str | None = None,
        pip_requirements: str | None = None,
    ) -> Self:
        """The packages of a file laid on ``image``; without a file the image as it is."""
        made = super().from_docker_image(
            name,
            image,
            conda_specification=conda_specification,
            pip_requirements=pip_requirements,
        )
        made.docker.base_image_registry = container_registry or ContainerRegistry()
        return made

    @classmethod
    def from_existing_conda_environment(cls, name: str, conda_environment_name: str) -> Self:
        """Refused: there is no conda here."""
        raise UserErrorException(
            f"conda_environment_name: got {conda_environment_name!r} for {name!r}; there is no "
            "conda here. Write its packages to a file (conda env export) and give that to "
            "from_conda_specification"
        )

    @classmethod
    def load_from_directory(cls, path: str) -> Self:
        """What ``save_to_directory`` wrote."""
        file = Path(path, _FILE)
        try:
            content = json.loads(file.read_text())
            made = cls(str(content["name"]))
            made._restore(content, Path(path))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserErrorException(
                f"path: {path} holds no environment that save_to_directory wrote: {error}"
            ) from error
        return made

    def save_to_directory(self, path: str, overwrite: bool = False) -> None:
        """Write the definition as files into a new folder, or over an old one."""
        folder = Path(path)
        if folder.exists():
            if not overwrite:
                raise UserErrorException(f"path: {path} exists already; give overwrite=True")
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        (folder / _FILE).write_text(json.dumps(self.as_json(), indent=4))
        self.python.conda_dependencies.save_to_file(str(folder), _CONDA_FILE)

    def build(  # type: ignore[override]  # v1's signature
        self, workspace: Workspace, image_build_compute: str | None = None
    ) -> native.ImageBuildDetails:
        """Prepare it now, anew if it is there already."""
        del image_build_compute
        return super().build(workspace, rebuild=True)

    def build_local(self, workspace: Workspace, platform: object = None, **_kwargs: object) -> None:
        """Prepare it and wait; it is the same builder."""
        del platform
        self.build(workspace).wait_for_completion(show_output=True)

    @property
    def image(self) -> str | None:
        """The container image, if it is not the default one."""
        image = self.docker.base_image
        return None if image == DEFAULT_CPU_IMAGE else image

    @image.setter
    def image(self, image: str | None) -> None:
        self.docker.base_image = image or DEFAULT_CPU_IMAGE

    @property
    def dockerfile(self) -> str | None:
        """Text of the Dockerfile."""
        return self.docker.base_dockerfile

    @dockerfile.setter
    def dockerfile(self, text: str | None) -> None:
        self.docker.base_dockerfile = text
        self._instead_of_an_image(text)

    @property
    def build_context(self) -> DockerBuildContext | None:
        """An uploaded folder with a Dockerfile."""
        return self.docker.build_context

    @build_context.setter
    def build_context(self, context: DockerBuildContext | None) -> None:
        self.docker.build_context = context
        self._instead_of_an_image(context)

    def _instead_of_an_image(self, given: object) -> None:
        if given is not None and self.image is None:
            self.docker.base_image = None

    def definition(self) -> EnvironmentDefinition:
        """The definition as it is now. Raises UserErrorException naming what cannot be used."""
        stands_on = {
            "base_image": self.image,
            "base_dockerfile": self.dockerfile,
            "build_context": self.build_context,
        }
        given = [name for name, value in stands_on.items() if value is not None]
        if len(given) > 1:
            raise UserErrorException(
                f"docker: {' and '.join(given)} are both given; set one of them to None"
            )
        return super().definition()

    def as_json(self) -> dict[str, Any]:
        """The definition with v1's keys."""
        docker, python = self.docker, self.python
        conda = python.conda_dependencies
        return {
            "name": self.name,
            "version": self.version,
            "environmentVariables": dict(self.environment_variables),
            "python": {
                "userManagedDependencies": python.user_managed_dependencies,
                "interpreterPath": python.interpreter_path,
                "condaDependenciesFile": python.conda_dependencies_file,
                "baseCondaEnvironment": python.base_conda_environment,
                "condaDependencies": {
                    "channels": conda.conda_channels,
                    "dependencies": [
                        *conda_name(conda.python_version),
                        *conda.conda_packages,
                        {"pip": conda.pip_packages},
                    ],
                },
            },
            "docker": {
                "enabled": docker.enabled,
                "baseImage": docker.base_image,
                "baseDockerfile": docker.base_dockerfile,
                "sharedVolumes": docker.shared_volumes,
                "shmSize": docker.shm_size,
                "arguments": list(docker.arguments),
                "baseImageRegistry": {"address": docker.base_image_registry.address},
            },
            "spark": {
                "repositories": list(self.spark.repositories),
                "packages": [
                    {"group": each.group, "artifact": each.artifact, "version": each.version}
                    for each in self.spark.packages
                ],
                "precachePackages": self.spark.precache_packages,
            },
            "inferencingStackVersion": self.inferencing_stack_version,
        }

    @classmethod
    def _of(cls, name: str, definition: EnvironmentDefinition) -> Self:
        made = super()._of(name, definition)
        made.python.conda_dependencies = CondaDependencies.of(definition)
        made.python.interpreter_path = definition.interpreter or "python"
        return made

    @classmethod
    def _curated(cls, name: str) -> Self:
        return cls._of(name, from_packages(builtin().curated_packages(name) or ()))

    def _restore(self, content: dict[str, Any], folder: Path) -> None:
        python, docker = content["python"], content["docker"]
        self.environment_variables = dict(content["environmentVariables"])
        self.python.conda_dependencies = CondaDependencies(str(folder / _CONDA_FILE))
        self.python.user_managed_dependencies = bool(python["userManagedDependencies"])
        self.python.interpreter_path = python["interpreterPath"]
        self.docker.enabled = bool(docker["enabled"])
        self.docker.base_image = docker["baseImage"]
        self.docker.base_dockerfile = docker["baseDockerfile"]
        self.docker.shm_size = docker["shmSize"]
        self.docker.arguments = list(docker["arguments"])
        self.inferencing_stack_version = content["inferencingStackVersion"]
