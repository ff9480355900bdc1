"""The v1 SDK's Workspace: one platform under the names that v1 code has for it."""

import re
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from azureml.core import _config_file as config_file
from azureml.core._config_file import Names
from azureml.exceptions import UserErrorException, WorkspaceException
from stellwerk import workspace as native
from stellwerk.api import ComputeView, InfoView
from stellwerk.config import DEFAULT_WORKSPACE, Connection, discover, from_file

if TYPE_CHECKING:
    from azureml.core.datastore import Datastore
    from azureml.core.experiment import Experiment
    from azureml.core.run import Run

_NAME = re.compile(r"[A-Za-z0-9][\w-]{1,254}", re.ASCII)
_LOCATION = "local"


def _core(name: str) -> Any:
    """A class of ``azureml.core``; those modules import this one."""
    return getattr(import_module("azureml.core"), name)


class Workspace(native.Workspace):
    """The platform that is configured here, asked whether it answers.

    Subscription, resource group and name are what v1 code calls it; they choose nothing, for
    there is one platform. ``auth`` is accepted: the token is that of the platform's own
    configuration. Raises WorkspaceException for a name that cannot be one, UserErrorException
    where no platform is configured, ServiceException where it does not answer.
    """

    def __init__(
        self,
        subscription_id: str,
        resource_group: str,
        workspace_name: str,
        auth: object = None,
        _location: str | None = None,
        _disable_service_check: bool = False,
        _workspace_id: str | None = None,
        sku: str = "basic",
        tags: dict[str, str] | None = None,
        _cloud: str = "AzureCloud",
        **kwargs: object,
    ) -> None:
        del auth, _location, _workspace_id, sku, tags, _cloud, kwargs
        self._names = _checked(Names(workspace_name, resource_group, subscription_id))
        self._connect(discover())
        if not _disable_service_check:
            self.client.get("/info", InfoView)

    @classmethod
    def of(cls, connection: Connection, names: Names | None = None) -> "Workspace":
        """The workspace of a known connection."""
        workspace = object.__new__(cls)
        workspace._names = names or Names(connection.workspace)
        workspace._connect(connection)
        return workspace

    @classmethod
    def from_config(
        cls,
        path: str | None = None,
        auth: object = None,
        _logger: object = None,
        _file_name: str | None = None,
    ) -> "Workspace":
        """The workspace named in the nearest ``config.json``, on the platform configured here.

        Looked for in ``.azureml/``, ``aml_config/`` and the folder itself, here and in all
        parents. Without such a file it is the platform's own name. ``path`` is the file, or the
        folder to begin with; raises UserErrorException where it holds no configuration.
        """
        del auth, _logger
        found = config_file.find(Path(path or "."), _file_name)
        if found is not None:
            return cls.of(discover(), _checked(found[1]))
        if path is None:
            return cls.of(discover())
        return cls.of(from_file(Path(path)))

    @classmethod
    def get(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        **kwargs: object,
    ) -> "Workspace":
        """As the constructor."""
        del location
        names = Names(name)
        return cls(
            subscription_id or names.subscription_id,
            resource_group or names.resource_group,
            name,
            auth,
            **kwargs,  # type: ignore[arg-type]  # all ignored
        )

    @classmethod
    def create(
        cls,
        name: str,
        auth: object = None,
        subscription_id: str | None = None,
        resource_group: str | None = None,
        location: str | None = None,
        create_resource_group: bool = True,
        sku: str = "basic",
        tags: dict[str, str] | None = None,
        friendly_name: str | None = None,
        storage_account: str | None = None,
        key_vault: str | None = None,
        app_insights: str | None = None,
        container_registry: str | None = None,
        exist_ok: bool = False,
        show_output: bool = True,
        **kwargs: object,
    ) -> "Workspace":
        """The platform that is configured here: there is nothing to create. See ``get``."""
        del create_resource_group, sku, tags, friendly_name, storage_account, key_vault
        del app_insights, container_registry, exist_ok, show_output, kwargs
        return cls.get(name, auth, subscription_id, resource_group, location)

    @classmethod
    def list(
        cls, subscription_id: str, auth: object = None, resource_group: str | None = None
    ) -> "dict[str, list[Workspace]]":
        """The one workspace there is, by its name."""
        del auth
        connection = discover()
        names = Names(connection.workspace, resource_group or "stellwerk", subscription_id)
        return {names.workspace_name: [cls.of(connection, names)]}

    @classmethod
    def setup(cls) -> "Workspace":
        """As ``from_config``."""
        return cls.from_config()

    def __repr__(self) -> str:
        return (
            f"Workspace.create(name={self.name!r}, subscription_id={self.subscription_id!r}, "
            f"resource_group={self.resource_group!r})"
        )

    @property
    def name(self) -> str:
        """The name it was asked for by."""
        return self._names.workspace_name

    @property
    def subscription_id(self) -> str:
        """The subscription it was asked for by; zeros where none was."""
        return self._names.subscription_id

    @property
    def resource_group(self) -> str:
        """The resource group it was asked for by, or ``stellwerk``."""
        return self._names.resource_group

    @property
    def location(self) -> str:
        """``local``: your own machines."""
        return _LOCATION

    @property
    def sku(self) -> str:
        """``Basic``."""
        return "Basic"

    @property
    def tags(self) -> dict[str, str]:
        """A workspace has no tags here."""
        return {}

    def get_details(self) -> dict[str, Any]:
        """The v1 keys, and under ``stellwerk`` what the platform says about itself."""
        info = self.client.get("/info", InfoView)
        return {
            "id": f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.name}",
            "name": self.name,
            "location": self.location,
            "type": "Microsoft.MachineLearningServices/workspaces",
            "tags": {},
            "sku": self.sku,
            "workspaceid": info.workspace,
            "description": "",
            "friendlyName": self.name,
            "discoveryUrl": self.url,
            "stellwerk": info.model_dump(mode="json"),
        }

    def write_config(self, path: str | None = None, file_name: str | None = None) -> None:
        """Write ``<path>/.azureml/config.json`` with the three names; never a token."""
        config_file.write(Path(path or "."), file_name, self._names)

    def get_run(self, run_id: str) -> "Run":
        """A run by its id. Raises UserErrorException."""
        run: Run = _core("Run").get(self, run_id)
        return run

    def get_default_datastore(self) -> "Datastore":
        """The datastore that every workspace has."""
        store: Datastore = _core("Datastore").get_default(self)
        return store

    def set_default_datastore(self, name: str) -> None:
        """Accept the only one there is."""
        if name != self.get_default_datastore().name:
            raise UserErrorException(f"name: there is no datastore {name!r} to be the default one")

    def get_default_keyvault(self) -> Any:
        """The workspace's Keyvault."""
        return _core("Keyvault")(self)

    def get_mlflow_tracking_uri(self) -> str:
        """Refused: MLflow is not served yet."""
        raise UserErrorException(
            "get_mlflow_tracking_uri: Stellwerk does not speak MLflow yet; log with Run.log(), or "
            "give mlflow.set_tracking_uri() a server of your own"
        )

    def experiment(self, name: str) -> "Experiment":
        """The experiment of this name, whether it has runs yet or not."""
        experiment: Experiment = _core("Experiment")(self, name)
        return experiment

    @property
    def compute_targets(self) -> dict[str, Any]:
        """All clusters by name."""
        from azureml.core.compute import RESERVED, AmlCompute  # noqa: PLC0415 - see _core

        views = self.client.pages("/compute", ComputeView)
        return {
            each.name: AmlCompute.of_view(self, each) for each in views if each.name != RESERVED
        }

    @property
    def datastores(self) -> "dict[str, Datastore]":
        """The datastores by name."""
        default = self.get_default_datastore()
        return {default.name: default}

    @property
    def datasets(self) -> dict[str, Any]:
        """The latest version of every registered dataset by name."""
        found: dict[str, Any] = _core("Dataset").get_all(self)
        return found

    @property
    def environments(self) -> dict[str, Any]:
        """The latest version of every environment by name."""
        found: dict[str, Any] = _core("Environment").list(self)
        return found

    @property
    def experiments(self) -> dict[str, Any]:
        """All experiments that have runs, by name."""
        return {name: self.experiment(name) for name in super().experiments}

    @property
    def models(self) -> dict[str, Any]:
        """The latest version of every model by name."""
        return {model.name: model for model in _core("Model").list(self, latest=True)}

    @property
    def webservices(self) -> dict[str, object]:
        """Empty: models are not deployed here."""
        return {}


def _checked(names: Names) -> Names:
    """Raises WorkspaceException for placeholders such as ``<my-workspace>``."""
    if not isinstance(names.workspace_name, str) or not _NAME.fullmatch(names.workspace_name):
        raise WorkspaceException(
            f"workspace_name: got {names.workspace_name!r}; it has 2 to 255 letters, digits, '-' "
            f"and '_', a letter or digit first. Any such name means the platform that is "
            f"configured here; its own is {DEFAULT_WORKSPACE!r} unless the operator chose another"
        )
    return names
