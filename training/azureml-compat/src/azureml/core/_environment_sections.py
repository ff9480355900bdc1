"""Parts of the v1 SDK's Environment."""

from azureml.core._section import Section
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.container_registry import ContainerRegistry
from stellwerk import environment as native
from stellwerk.docker_build_context import DockerBuildContext

DEFAULT_CPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-ubuntu22.04"
DEFAULT_GPU_IMAGE = "mcr.microsoft.com/azureml/openmpi4.1.0-cuda11.8-cudnn8-ubuntu22.04"


class PythonSection(Section, native.PythonSection):
    """Which interpreter and which packages.

    ``user_managed_dependencies``: nothing is installed, the run gets ``interpreter_path`` of its
    node; ``python`` is the first on the PATH of whoever started the executor.
    """

    __slots__ = ("_file", "base_conda_environment")

    def __init__(self) -> None:
        super().__init__()
        self.conda_dependencies: CondaDependencies = CondaDependencies()
        self.interpreter_path = "python"
        self.base_conda_environment: str | None = None
        self._file: str | None = None

    @property
    def conda_dependencies_file(self) -> str | None:
        """A conda file; setting it reads the file."""
        return self._file

    @conda_dependencies_file.setter
    def conda_dependencies_file(self, path: str | None) -> None:
        self._file = path
        if path is not None:
            self.conda_dependencies = CondaDependencies(path)


class DockerSection(Section):
    """What an environment stands on: ``base_image``, ``base_dockerfile`` or ``build_context``.

    The rest is kept and shown, without effect: how containers run is the operator's.
    """

    __slots__ = (
        "arguments",
        "base_dockerfile",
        "base_image",
        "base_image_registry",
        "build_context",
        "enabled",
        "gpu_support",
        "platform",
        "shared_volumes",
        "shm_size",
    )

    def __init__(self) -> None:
        self.enabled = False
        self.base_image: str | None = DEFAULT_CPU_IMAGE
        self.base_dockerfile: str | None = None
        self.base_image_registry = ContainerRegistry()
        self.build_context: DockerBuildContext | None = None
        self.arguments: list[str] = []
        self.shared_volumes = True
        self.shm_size: str | None = None
        self.gpu_support = True
        self.platform: object = None


class SparkPackage(Section):
    """A Spark library."""

    __slots__ = ("artifact", "group", "version")

    def __init__(
        self, group: str | None = None, artifact: str | None = None, version: str | None = None
    ) -> None:
        self.group, self.artifact, self.version = group, artifact, version


class SparkSection(Section):
    """Spark settings; runs are no Spark jobs."""

    __slots__ = ("packages", "precache_packages", "repositories")

    def __init__(self) -> None:
        self.repositories: list[str] = []
        self.packages: list[SparkPackage] = []
        self.precache_packages = True


class DatabricksSection(Section):
    """Libraries of Databricks clusters; there are none."""

    __slots__ = (
        "egg_libraries",
        "jar_libraries",
        "maven_libraries",
        "pypi_libraries",
        "rcran_libraries",
    )

    def __init__(self) -> None:
        for name in self.__slots__:
            setattr(self, name, [])
