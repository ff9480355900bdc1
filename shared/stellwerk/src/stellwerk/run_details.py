"""``Run.get_details()``: a run as the dictionary that v1 code reads. Pure."""

from datetime import datetime
from typing import Any

from stellwerk.api import RunView
from stellwerk.environment_python import conda_name
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.ids import derived_id
from stellwerk.runspec import (
    Distributed,
    EnvironmentReference,
    InputArgument,
    OutputArgument,
    RunSpec,
    SnapshotSource,
)


def details(
    view: RunView, logs: dict[str, str], registered: EnvironmentDefinition | None = None
) -> dict[str, Any]:
    """The v1 keys; ``logs`` maps the path of each log to its address.

    ``registered`` is the definition of the environment that the run names, if it names one.
    """
    content: dict[str, Any] = {
        "runId": view.run_id,
        "target": view.target,
        "status": view.status,
        "startTimeUtc": _utc(view.started_at),
        "endTimeUtc": _utc(view.ended_at),
        "services": {},
        "warnings": [{"source": "stellwerk", "message": text} for text in view.warnings],
        "properties": _properties(view),
        "inputDatasets": [
            {
                "dataset": {"id": each.dataset_id, "name": each.name, "version": each.version},
                "consumptionDetails": {
                    "type": "RunInput",
                    "inputName": name,
                    "mechanism": each.mode.capitalize(),
                    "pathOnCompute": each.path,
                },
            }
            for name, each in view.inputs.items()
        ],
        "outputDatasets": [
            {
                "identifier": {"savedId": each.dataset_id, "registeredId": each.name},
                "dataset": {"id": each.dataset_id, "name": each.name, "version": each.version},
                "outputType": "RunOutput",
                "outputDetails": {
                    "outputName": name,
                    "datastore": each.datastore,
                    "path": each.path,
                },
            }
            for name, each in view.outputs.items()
        ],
        "runDefinition": run_definition(view, registered) if view.spec else {},
        "logFiles": logs,
        "submittedBy": view.submitted_by,
    }
    if view.error is not None:
        content["error"] = {"error": {"code": view.error.code, "message": view.error.message}}
    return content


def run_definition(
    view: RunView, registered: EnvironmentDefinition | None = None
) -> dict[str, Any]:
    """What the run was asked to do."""
    spec = view.spec
    if spec is None:
        return {}
    several, container = spec.distributed, spec.container
    servers = several.parameter_servers if several else 0
    return {
        "script": spec.script,
        "command": " ".join(spec.command or ()),
        "arguments": [_argument(each) for each in spec.arguments],
        "target": spec.target,
        "framework": _FRAMEWORKS.get(several.backend, "Python") if several else "Python",
        "communicator": _COMMUNICATORS[several.backend] if several else "None",
        "nodeCount": 1,
        "jobName": spec.display_name,
        "maxRunDurationSeconds": int(spec.max_duration_s),
        "data": {name: each.model_dump(mode="json") for name, each in spec.inputs.items()},
        "outputData": {name: each.model_dump(mode="json") for name, each in spec.outputs.items()},
        "dataReferences": {},
        "environment": _environment(view, spec, registered),
        "environmentVariables": dict(spec.environment_variables),
        "history": {
            "outputCollection": True,
            "directoriesToWatch": ["logs"],
            "snapshotProject": True,
        },
        "docker": {
            "useDocker": bool(container and container.use),
            "sharedVolumes": container.shared_volumes if container else True,
            "shmSize": container.shm_size if container else "2g",
            "arguments": list(container.arguments) if container else [],
        },
        "mpi": {"processCountPerNode": _processes(several, "mpi") or 1, "nodeCount": 1},
        "pyTorch": {
            "communicationBackend": None,
            "processCount": _processes(several, "pytorch"),
        },
        "tensorflow": {
            "workerCount": (_processes(several, "tensorflow") or 1) - servers,
            "parameterServerCount": servers,
        },
        "amlCompute": {"name": None, "vmSize": None},
    }


_FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}
_COMMUNICATORS = {"pytorch": "Nccl", "tensorflow": "ParameterServer", "mpi": "Mpi"}


def _processes(several: Distributed | None, backend: str) -> int | None:
    return several.process_count if several and several.backend == backend else None


def _properties(view: RunView) -> dict[str, str | None]:
    properties = dict(view.properties)
    kind = "local" if view.target == "local" else "amlctrain"
    properties.setdefault("_azureml.ComputeTargetType", kind)
    properties.setdefault("ProcessInfoFile", "azureml-logs/process_info.json")
    properties.setdefault("ProcessStatusFile", "azureml-logs/process_status.json")
    if view.spec is not None and isinstance(view.spec.source, SnapshotSource):
        properties.setdefault("ContentSnapshotId", view.spec.source.snapshot)
    return properties


def _environment(
    view: RunView, spec: RunSpec, registered: EnvironmentDefinition | None
) -> dict[str, Any]:
    given, image = spec.environment, view.image
    if isinstance(given, EnvironmentReference):
        definition = registered or EnvironmentDefinition()
        name: str | None = given.name
        number = image.version if image and image.version else given.version
        version = None if number is None else str(number)
    else:
        definition, name = given, spec.environment_name
        version = f"Autosave_{_utc(view.submitted_at)}_{derived_id(given.model_dump_json())[:8]}"
    return {
        "name": name,
        "version": version,
        "python": {
            "interpreterPath": (image and image.interpreter) or "python",
            "userManagedDependencies": definition.user_managed,
            "condaDependencies": {
                "channels": list(definition.channels),
                "dependencies": [
                    *conda_name(definition.python),
                    *definition.conda_packages,
                    {"pip": list(definition.pip_packages)},
                ],
            },
        },
        "environmentVariables": dict(definition.environment_variables),
        "docker": {
            "enabled": bool(spec.container and spec.container.use),
            "baseImage": definition.image,
            "baseDockerfile": definition.dockerfile,
            "arguments": [],
        },
        "spark": {"repositories": [], "packages": [], "precachePackages": True},
        "inferencingStackVersion": None,
    }


def _argument(argument: object) -> str:
    if isinstance(argument, InputArgument):
        return f"DatasetConsumptionConfig:{argument.input}"
    if isinstance(argument, OutputArgument):
        return f"DatasetOutputConfig:{argument.output}"
    return str(argument)


def _utc(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None
