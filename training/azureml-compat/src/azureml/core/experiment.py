"""The v1 SDK's Experiment."""

from typing import TYPE_CHECKING, ClassVar

from azureml.core._run import Run
from stellwerk import experiment as native
from stellwerk import run as native_run

if TYPE_CHECKING:
    from azureml.core.workspace import Workspace

Experiments = list["Experiment"]


class Experiment(native.Experiment):
    """A named collection of runs; it exists as soon as it has one."""

    run_class: ClassVar[type[native_run.Run]] = Run

    @property
    def id(self) -> str:
        """The name: an experiment has no other id here."""
        return self.name

    @staticmethod
    def list(
        workspace: "Workspace", experiment_name: str | None = None, **_: object
    ) -> Experiments:
        """All experiments that have runs, or the one of that name."""
        found = workspace.experiments
        return [each for name, each in found.items() if experiment_name in {None, name}]

    def refresh(self) -> None:
        """Nothing to do: nothing is remembered."""
