"""The workspace: the place where datasets, clusters, environments, runs and models are found."""

from html import escape
from pathlib import Path
from typing import Any

from stellwerk.answers import ExperimentView
from stellwerk.api import ComputeView, InfoView
from stellwerk.client import Client
from stellwerk.compute import AmlCompute
from stellwerk.config import DEFAULT_WORKSPACE, Connection, discover, from_file, write
from stellwerk.dataset import Dataset, FileDataset, TabularDataset
from stellwerk.datastore import Datastore
from stellwerk.environment import Environment
from stellwerk.experiment import Experiment
from stellwerk.keyvault import Keyvault
from stellwerk.model import Model


class Workspace:
    """A platform and the right to use it. Nothing is asked of it before it is needed.

    Without ``url`` the platform is looked for (``Workspace.from_config``). Raises UserError
    (workspace.not_found) where there is none.
    """

    def __init__(
        self,
        url: str | None = None,
        token: str | None = None,
        workspace_name: str = DEFAULT_WORKSPACE,
    ) -> None:
        named = None if workspace_name == DEFAULT_WORKSPACE else workspace_name
        self._connect(discover(url, token, named))

    @classmethod
    def of(cls, connection: Connection) -> "Workspace":
        """The workspace of a known connection."""
        workspace = object.__new__(cls)
        workspace._connect(connection)
        return workspace

    @classmethod
    def from_config(cls, path: str | None = None) -> "Workspace":
        """The workspace that is configured for this folder, or at ``path`` (file or folder)."""
        return cls.of(discover() if path is None else from_file(Path(path)))

    def _connect(self, connection: Connection) -> None:
        self._connection = connection
        self.client = Client(connection)

    def __repr__(self) -> str:
        return f"Workspace.create(name={self.name!r}, url={self.url!r})"

    def _repr_html_(self) -> str:
        link = f'<a href="{escape(self.get_portal_url())}" target="_blank" rel="noopener">'
        return (
            "<table><tr><th>Name</th><th>Address</th><th>Details</th></tr><tr>"
            f"<td>{escape(self.name)}</td><td>{escape(self.url)}</td>"
            f"<td>{link}Experiments</a></td></tr></table>"
        )

    @property
    def name(self) -> str:
        """The workspace's name."""
        return self._connection.workspace

    @property
    def url(self) -> str:
        """The platform's address."""
        return self._connection.url

    def get_portal_url(self) -> str:
        """Address of the page that lists the experiments; it asks for a token."""
        return f"{self.url}/experiments"

    def get_details(self) -> dict[str, Any]:
        """What the platform says about itself."""
        return self.client.get("/info", InfoView).model_dump(mode="json")

    def write_config(self, path: str | None = None) -> None:
        """Write ``.stellwerk/config.json`` below ``path`` (default: here), without the token."""
        write(Path(path or "."), self._connection)

    def get_default_datastore(self) -> Datastore:
        """The datastore that every workspace has."""
        return Datastore(self)

    def get_default_keyvault(self) -> Keyvault:
        """The secrets of the workspace."""
        return Keyvault(self)

    def experiment(self, name: str) -> Experiment:
        """The experiment of this name, whether it has runs yet or not."""
        return Experiment(self, name)

    @property
    def compute_targets(self) -> dict[str, AmlCompute]:
        """All clusters by name."""
        views = self.client.pages("/compute", ComputeView)
        return {view.name: AmlCompute.of_view(self, view) for view in views}

    @property
    def datastores(self) -> dict[str, Datastore]:
        """The default datastore by name."""
        default = self.get_default_datastore()
        return {default.name: default}

    @property
    def datasets(self) -> dict[str, FileDataset | TabularDataset]:
        """The latest version of every registered dataset by name."""
        return Dataset.get_all(self)

    @property
    def environments(self) -> dict[str, Environment]:
        """The latest version of every environment by name."""
        return Environment.list(self)

    @property
    def experiments(self) -> dict[str, Experiment]:
        """All experiments that have runs, by name."""
        views = self.client.pages("/experiments", ExperimentView)
        return {view.name: Experiment(self, view.name) for view in views}

    @property
    def models(self) -> dict[str, Model]:
        """The latest version of every model by name."""
        return {model.name: model for model in Model.list(self, latest=True)}
