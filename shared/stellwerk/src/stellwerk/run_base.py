"""What every part of a run works with: the workspace, the address, what the platform said last."""

from typing import TYPE_CHECKING, Self

from stellwerk.api import RunView
from stellwerk.client import Client, segment

if TYPE_CHECKING:
    from stellwerk.experiment import Experiment
    from stellwerk.run import Run
    from stellwerk.workspace import Workspace


class RunBase:
    """A run and the platform's view of it."""

    _workspace: "Workspace"
    _path: str
    _view: RunView

    @classmethod
    def of_view(cls, workspace: "Workspace", view: RunView) -> Self:
        """The platform's answer as an object."""
        run = object.__new__(cls)
        run._workspace, run._view = workspace, view
        run._path = f"/runs/{segment(view.run_id)}"
        run._prepare()
        return run

    def _prepare(self) -> None:
        """Set what an object has besides."""

    @property
    def id(self) -> str:
        """The run's id."""
        return self._view.run_id

    @property
    def view(self) -> RunView:
        """What the platform said last."""
        return self._view

    @property
    def experiment(self) -> "Experiment":
        """The run's experiment."""
        return self._workspace.experiment(self._view.experiment)

    def refresh(self) -> RunView:
        """Ask the platform for everything it knows."""
        self._view = self._client.get(self._path, RunView)
        return self._view

    def _other(self, view: RunView) -> "Run":
        """Another run of the same workspace."""
        return self.experiment.run_class.of_view(self._workspace, view)

    @property
    def _client(self) -> Client:
        return self._workspace.client
