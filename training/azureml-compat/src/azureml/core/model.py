"""The v1 SDK's Model: a version of a registered model."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azureml._refusal import Refused
from azureml.core.resource_configuration import ResourceConfiguration
from azureml.exceptions import ModelNotFoundException, WebserviceException
from stellwerk import model as native
from stellwerk.dataset import FileDataset
from stellwerk.errors import NotFoundError

if TYPE_CHECKING:
    from azureml.core.run import Run
    from azureml.core.workspace import Workspace

RESOURCES = "azureml.resourceConfiguration"
_NOT_SERVED = (
    "Stellwerk does not deploy models yet. Fetch the model with download() and serve it with a "
    "server of your own."
)
Tags = list[str | list[str]]
Models = list["Model"]


class Model(native.Model):
    """A model version: by ``name`` (the latest, or ``version``) or by ``id`` (name:version).

    ``tags``, ``properties``, ``run_id`` and ``model_framework`` narrow what the latest is taken
    from. Raises WebserviceException (ModelNotFound) where there is none.
    """

    def __init__(
        self,
        workspace: "Workspace",
        name: str | None = None,
        id: str | None = None,
        tags: Tags | None = None,
        properties: Tags | None = None,
        version: int | None = None,
        run_id: str | None = None,
        model_framework: str | None = None,
        **kwargs: object,
    ) -> None:
        del kwargs
        with _not_found():
            if tags or properties or run_id or model_framework:
                found = Model.list(
                    workspace, name, tags, properties, run_id, model_framework=model_framework
                )
                if not found:
                    raise NotFoundError(f"no model {name or ''} is like that")
                newest = max(found, key=lambda each: each.created_time)
                self._workspace, self._view = workspace, newest.view
            else:
                super().__init__(workspace, name, id, None if version is None else int(version))

    @classmethod
    def register(  # type: ignore[override]  # v1's order of arguments
        cls,
        workspace: "Workspace",
        model_path: str,
        model_name: str,
        tags: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        description: str | None = None,
        datasets: list[tuple[str, FileDataset]] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        child_paths: list[str] | None = None,
        sample_input_dataset: FileDataset | None = None,
        sample_output_dataset: FileDataset | None = None,
        resource_configuration: ResourceConfiguration | None = None,
    ) -> "Model":
        """Make a model version of a local file or folder, stored under its own last name.

        Prints ``Registering model <name>``. Raises FileNotFoundError, PermissionError.
        """
        if child_paths:
            raise WebserviceException(
                "child_paths: put what belongs to the model into one folder and give that as "
                "model_path"
            )
        _check_readable(Path(model_path))
        print(f"Registering model {model_name}")  # noqa: T201 - v1 prints it
        samples = {"sample_input": sample_input_dataset, "sample_output": sample_output_dataset}
        roles = [*(datasets or ()), *((role, each) for role, each in samples.items() if each)]
        resources = (
            {RESOURCES: json.dumps(resource_configuration.serialize())}
            if (resource_configuration)
            else {}
        )
        made: Model = super().register(
            workspace,
            model_path,
            model_name,
            tags,
            {**(properties or {}), **resources},
            description,
            roles,
            model_framework,
            model_framework_version,
        )
        return made

    @classmethod
    def list(  # type: ignore[override]  # more filters than the native one
        cls,
        workspace: "Workspace",
        name: str | None = None,
        tags: Tags | None = None,
        properties: Tags | None = None,
        run_id: str | None = None,
        latest: bool = False,
        dataset_id: str | None = None,
        expand: bool = True,
        page_count: int = 255,
        model_framework: str | None = None,
    ) -> Models:
        """Model versions, newest first; a tag is a text (has it) or a pair (has this value)."""
        del expand, page_count
        found: Models = super().list(workspace, name, tags, properties, run_id, latest)
        return [
            each
            for each in found
            if (model_framework is None or each.model_framework == model_framework)
            and (dataset_id is None or dataset_id in each.lineage.datasets.values())
        ]

    @staticmethod
    def get_model_path(model_name: str, version: int | None = None, _workspace: Any = None) -> str:
        """Where the model's file or folder is on this machine; fetched if it is not there yet.

        Looked for at ``azureml-models/<name>/<version>``, then ``./<name>``; after that it is
        fetched from ``_workspace``, the run's workspace or the one configured here. Raises
        ModelNotFoundException.
        """
        try:
            return native.Model.get_model_path(
                model_name, None if version is None else int(version), _workspace
            )
        except NotFoundError as error:
            raise ModelNotFoundException(f"ModelNotFound: {error.message}") from None

    @property
    def workspace(self) -> "Workspace":
        """The model's workspace."""
        return self._workspace  # type: ignore[return-value]  # v1's, as it was given

    @property
    def url(self) -> str:
        """``aml://asset/`` and the id."""
        return f"aml://asset/{self.id}"

    @property
    def created_time(self) -> Any:
        """When it was registered."""
        return self.view.created_at

    @property
    def model_framework(self) -> str | None:
        """The framework given at registration."""
        return self.view.framework

    @property
    def model_framework_version(self) -> str | None:
        """The framework's version given at registration."""
        return self.view.framework_version

    @property
    def experiment_name(self) -> str | None:
        """The experiment of the run it was made from."""
        return self.lineage.experiment

    @property
    def run(self) -> "Run | None":
        """The run it was made from."""
        return self.workspace.get_run(self.run_id) if self.run_id else None

    @property
    def resource_configuration(self) -> ResourceConfiguration | None:
        """What it needs when it is served, as given at registration."""
        text = self.properties.get(RESOURCES)
        if text is None:
            return None
        given = json.loads(text)
        return ResourceConfiguration(given["cpu"], given["memoryInGB"], given["gpu"])

    @property
    def datasets(self) -> dict[str, Sequence[str]]:
        """Ids of the datasets given at registration, by their purpose."""
        return {role: [each] for role, each in self.lineage.datasets.items()}

    def serialize(self) -> dict[str, Any]:
        """The model as a dictionary."""
        return {
            "id": self.id,
            "name": self.name,
            "version": self.version,
            "url": self.url,
            "description": self.description,
            "tags": self.tags,
            "properties": self.properties,
            "framework": self.model_framework,
            "frameworkVersion": self.model_framework_version,
            "runId": self.run_id,
            "experimentName": self.experiment_name,
            "createdTime": self.created_time.isoformat(),
        }

    def update_tags_properties(
        self,
        add_tags: dict[str, Any] | None = None,
        remove_tags: native.TagNames | None = None,
        add_properties: dict[str, Any] | None = None,
    ) -> None:
        """Set and remove tags, add properties."""
        if add_tags:
            self.add_tags(add_tags)
        if remove_tags:
            self.remove_tags(remove_tags)
        if add_properties:
            self.add_properties(add_properties)

    @staticmethod
    def deploy(*_args: object, **_kwargs: object) -> None:
        """Refused."""
        raise WebserviceException(f"deploy: {_NOT_SERVED}")

    package = profile = deploy

    class Framework:
        """Names of frameworks."""

        CUSTOM = "Custom"
        KERAS = "Keras"
        MULTI = "Multi"
        ONNX = "Onnx"
        PYTORCH = "PyTorch"
        SCIKITLEARN = "ScikitLearn"
        TENSORFLOW = "TensorFlow"


class InferenceConfig(metaclass=Refused):
    """Refused."""

    reason = _NOT_SERVED


@contextmanager
def _not_found() -> Iterator[None]:
    try:
        yield
    except NotFoundError as error:
        raise WebserviceException(f"ModelNotFound: {error.message}", 404) from None


def _check_readable(path: Path) -> None:
    if not path.exists():
        raise FileNotFoundError(f"model_path: there is no file or folder {str(path)!r}")
    if not os.access(path, os.R_OK):
        raise PermissionError(f"model_path: {str(path)!r} cannot be read")


__all__ = ["InferenceConfig", "Model", "ResourceConfiguration"]
