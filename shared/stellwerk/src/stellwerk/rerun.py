"""What a run is asked to do when it shall do again exactly what an earlier one did. Pure."""

from stellwerk.api import RunView
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.errors import UserError
from stellwerk.events.dataset import ResolvedInput
from stellwerk.runspec import (
    DatasetInput,
    DatasetOutput,
    EnvironmentPin,
    EnvironmentReference,
    RunSpec,
)

Environment = EnvironmentReference | EnvironmentDefinition

RERUN_OF = "stellwerk.rerun_of"
"""The property that names the run which a rerun repeats."""


def pinned(view: RunView, target: str | None = None) -> RunSpec:
    """The spec of ``view`` with its environment's lock and image and its data as recorded.

    Source, arguments, variables and limits are the same. Outputs are kept as datasets of the
    rerun alone: they take no name and overwrite nothing. ``target`` None: the same cluster.
    Raises UserError for a run that recorded too little.
    """
    spec = view.spec
    if spec is None or spec.interactive:
        raise UserError(
            f"run {view.run_id[:12]} was driven by a client; only what the platform started can "
            "be run again",
            code="rerun.interactive",
            field="RUN",
        )
    image = view.image
    if image is None or not view.inputs.keys() >= spec.inputs.keys():
        raise UserError(
            f"run {view.run_id[:12]} is {view.status} and never got its environment and data, so "
            "there is nothing to repeat exactly; submit it anew",
            code="rerun.not_prepared",
            field="RUN",
        )
    pin = None
    if image.lock_digest is not None or image.image is not None:
        pin = EnvironmentPin(env_id=image.env_id, lock_digest=image.lock_digest, image=image.image)
    return spec.model_copy(
        update={
            "environment": _same_version(spec.environment, image.version),
            "environment_pin": pin,
            "inputs": {
                name: _as_read(spec.inputs[name], view.inputs[name]) for name in spec.inputs
            },
            "outputs": {name: _apart(output) for name, output in spec.outputs.items()},
            "properties": {**spec.properties, RERUN_OF: view.run_id},
            "target": target or spec.target,
        }
    )


def _same_version(asked: Environment, version: int | None) -> Environment:
    if isinstance(asked, EnvironmentReference) and version is not None:
        return asked.model_copy(update={"version": version})
    return asked


def _as_read(asked: DatasetInput, read: ResolvedInput) -> DatasetInput:
    return asked.model_copy(update={"dataset": read.dataset_id, "version": None})


def _apart(output: DatasetOutput) -> DatasetOutput:
    place = DatasetOutput.model_fields["path"].default
    return output.model_copy(update={"path": place, "register_as": None})
