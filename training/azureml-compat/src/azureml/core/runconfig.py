"""The v1 SDK's run configurations."""

from collections.abc import Sequence
from typing import Any

from azureml.core._section import Section
from azureml.core.conda_dependencies import CondaDependencies
from azureml.core.environment import DEFAULT_CPU_IMAGE, DEFAULT_GPU_IMAGE, DEFAULT_NAME, Environment
from azureml.exceptions import RunConfigurationException, UserErrorException
from stellwerk.datapath import DataReferenceConfiguration
from stellwerk.runspec import Container

__all__ = [
    "DEFAULT_CPU_IMAGE",
    "DEFAULT_GPU_IMAGE",
    "AmlComputeConfiguration",
    "CondaDependencies",
    "DataReferenceConfiguration",
    "DockerConfiguration",
    "Environment",
    "HistoryConfiguration",
    "MpiConfiguration",
    "PyTorchConfiguration",
    "RunConfiguration",
    "SparkConfiguration",
    "TensorflowConfiguration",
]

MAX_RUN_SECONDS = 2592000
_MPI = {"mpi", "intelmpi", "openmpi"}


class DockerConfiguration(Section):
    """Container settings of a run: recorded; what runs run in is the operator's choice."""

    __slots__ = ("arguments", "shared_volumes", "shm_size", "use_docker")

    def __init__(
        self,
        use_docker: bool = False,
        shared_volumes: bool = True,
        arguments: Sequence[str] | None = None,
        shm_size: str | None = None,
    ) -> None:
        self.use_docker = use_docker
        self.shared_volumes = shared_volumes
        self.arguments = list(arguments or ())
        self.shm_size = shm_size

    def idle(self) -> list[str]:
        """Settings that have no effect."""
        given = {"arguments": self.arguments, "shm_size": self.shm_size}
        return [name for name, value in given.items() if value]

    def container(self) -> Container:
        """As the run's spec has it."""
        return Container(
            use=self.use_docker,
            shared_volumes=self.shared_volumes,
            shm_size=self.shm_size or "2g",
            arguments=tuple(self.arguments),
        )


class MpiConfiguration(Section):
    """Processes that find each other by MPI's variables, on one node."""

    __slots__ = ("node_count", "process_count_per_node")

    def __init__(self, process_count_per_node: int = 1, node_count: int = 1) -> None:
        self.process_count_per_node = int(process_count_per_node)
        self.node_count = int(node_count)


class PyTorchConfiguration(Section):
    """Processes that find each other by PyTorch's variables; ``process_count`` is their total."""

    __slots__ = ("communication_backend", "node_count", "process_count")

    def __init__(
        self,
        communication_backend: str = "Nccl",
        process_count: int | None = None,
        node_count: int = 1,
    ) -> None:
        self.communication_backend = communication_backend
        self.node_count = int(node_count)
        self.process_count = None if process_count is None else int(process_count)


class TensorflowConfiguration(Section):
    """Workers and parameter servers, all of them processes of one node."""

    __slots__ = ("parameter_server_count", "worker_count")

    def __init__(self, worker_count: int = 1, parameter_server_count: int = 1) -> None:
        self.worker_count = int(worker_count)
        self.parameter_server_count = int(parameter_server_count)


Distribution = MpiConfiguration | PyTorchConfiguration | TensorflowConfiguration


class HistoryConfiguration(Section):
    """What is kept of a run: always everything."""

    __slots__ = ("directories_to_watch", "output_collection", "snapshot_project")

    def __init__(self) -> None:
        self.output_collection = True
        self.snapshot_project = True
        self.directories_to_watch = ["logs"]


class SparkConfiguration(Section):
    """Spark settings; runs are no Spark jobs."""

    __slots__ = ("configuration",)

    def __init__(self) -> None:
        self.configuration: dict[str, str] = {}


class AmlComputeConfiguration(Section):
    """A cluster made for one run; make one with ``ComputeTarget.create`` instead."""

    __slots__ = ("cluster_max_node_count", "name", "retain_cluster", "vm_priority", "vm_size")

    def __init__(self) -> None:
        self.vm_size: str | None = None
        self.vm_priority: str | None = None
        self.retain_cluster = False
        self.name: str | None = None
        self.cluster_max_node_count: int | None = None


class RunConfiguration(Section):
    """Everything about a run but its source."""

    __slots__ = (
        "_arguments",
        "_environment",
        "_target",
        "amlcompute",
        "auto_prepare_environment",
        "command",
        "communicator",
        "data",
        "data_references",
        "docker",
        "framework",
        "history",
        "max_run_duration_seconds",
        "mpi",
        "node_count",
        "output_data",
        "pytorch",
        "script",
        "source_directory_data_store",
        "spark",
        "tensorflow",
    )

    def __init__(
        self,
        script: str | None = None,
        arguments: Sequence[Any] | None = None,
        framework: str | None = None,
        communicator: str | None = None,
        conda_dependencies: CondaDependencies | None = None,
        _history_enabled: bool | None = None,
        _path: str | None = None,
        _name: str | None = None,
        command: Sequence[Any] | str | None = None,
    ) -> None:
        self.script = script
        self.command = command
        self.arguments = list(arguments or ())
        self.framework = framework or "Python"
        self.communicator = communicator or "None"
        self.target = "local"
        self.environment = Environment(DEFAULT_NAME)
        if conda_dependencies is not None:
            self.environment.python.conda_dependencies = conda_dependencies
        self.max_run_duration_seconds: float | None = MAX_RUN_SECONDS
        self.node_count = 1
        self.docker = DockerConfiguration()
        self.mpi = MpiConfiguration()
        self.pytorch = PyTorchConfiguration()
        self.tensorflow = TensorflowConfiguration()
        self.history = HistoryConfiguration()
        self.spark = SparkConfiguration()
        self.amlcompute = AmlComputeConfiguration()
        self.data_references: dict[str, DataReferenceConfiguration] = {}
        self.data: dict[str, Any] = {}
        self.output_data: dict[str, Any] = {}
        self.source_directory_data_store: str | None = None
        self.auto_prepare_environment = True  # of the first versions: it always is

    def __repr__(self) -> str:
        return (
            f"RunConfiguration(target={self.target!r}, environment={self.environment.name!r}, "
            f"framework={self.framework!r}, communicator={self.communicator!r})"
        )

    @property
    def target(self) -> str:
        """Name of the compute target; a target object may be assigned as well."""
        return self._target

    @target.setter
    def target(self, target: object) -> None:
        self._target = str(target if isinstance(target, str) else getattr(target, "name", "local"))

    @property
    def environment(self) -> Environment:
        """What the script needs; changes of the object count until the run is submitted."""
        return self._environment

    @environment.setter
    def environment(self, environment: Environment) -> None:
        if not isinstance(environment, Environment):
            raise UserErrorException(
                f"environment: got {type(environment).__name__}; give an Environment "
                "(Environment.get(workspace, name) for a registered one)"
            )
        self._environment = environment

    @property
    def arguments(self) -> list[Any]:
        """The script's arguments."""
        return self._arguments

    @arguments.setter
    def arguments(self, arguments: Sequence[Any]) -> None:
        self._arguments = list(arguments)

    @property
    def environment_variables(self) -> dict[str, str]:
        """Those of the environment."""
        return self.environment.environment_variables

    @environment_variables.setter
    def environment_variables(self, variables: dict[str, str]) -> None:
        self.environment.environment_variables = variables

    def distribute(self, given: Distribution) -> None:
        """Take over a distribution. Raises RunConfigurationException for anything else."""
        match given:
            case MpiConfiguration():
                self.communicator, self.mpi, self.node_count = "Mpi", given, given.node_count
            case PyTorchConfiguration():
                self.framework, self.communicator = "PyTorch", given.communication_backend
                self.pytorch, self.node_count = given, given.node_count
            case TensorflowConfiguration():
                self.framework, self.communicator = "TensorFlow", "ParameterServer"
                self.tensorflow = given
            case _:
                raise RunConfigurationException(
                    f"distributed_job_config: got {type(given).__name__}; give a "
                    "PyTorchConfiguration, MpiConfiguration or TensorflowConfiguration"
                )

    def distributed(self) -> dict[str, Any] | None:
        """The processes of a run as its spec has them; None: one, without a rank."""
        framework, communicator = self.framework.lower(), self.communicator.lower()
        if framework == "pyspark":
            raise UserErrorException("framework: runs are no Spark jobs; give 'Python'")
        if communicator in _MPI:
            return {
                "backend": "mpi",
                "process_count": self.mpi.process_count_per_node,
                "node_count": self.node_count,
            }
        if framework == "pytorch" and communicator != "none":
            total = self.pytorch.process_count or self.node_count
            return {
                "backend": "pytorch",
                "process_count": total,
                "node_count": self.node_count,
            }
        if framework == "tensorflow" and communicator != "none":
            servers = self.tensorflow.parameter_server_count
            return {
                "backend": "tensorflow",
                "process_count": self.tensorflow.worker_count + servers,
                "parameter_servers": servers,
            }
        if self.node_count != 1:
            return {"backend": "mpi", "node_count": self.node_count}  # refused where it is checked
        return None
