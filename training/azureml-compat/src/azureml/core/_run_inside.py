"""A run seen from inside where the SDK's dependencies are not installed."""

from typing import Any

from azureml._absent import REASON
from azureml.core._offline_run import _OfflineRun
from stellwerk_agent import Run as _Inside
from stellwerk_agent import RunEnvironmentError

_known: "dict[str, _SubmittedRun]" = {}


class Run:
    """What can be said about a run without a platform to ask: its context."""

    def __init__(self, *_: Any, **__: Any) -> None:
        raise RunEnvironmentError(_needs("Run(experiment, run_id)"))

    @staticmethod
    def get_context(allow_offline: bool = True, **_: Any) -> "_SubmittedRun | _OfflineRun":
        """The run this process belongs to; outside a run one that only prints."""
        try:
            inside = _Inside.get_context(allow_offline=False)
        except RunEnvironmentError:
            if allow_offline:
                return _OfflineRun()
            raise
        if inside.id not in _known:
            _known[inside.id] = _SubmittedRun(inside)
        return _known[inside.id]


class _SubmittedRun(Run):
    """The run around this process."""

    def __init__(self, inside: Any) -> None:
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        """What the in-run library can do; anything else needs the platform."""
        if name not in {"_inside", "parent"} and hasattr(self._inside, name):
            return getattr(self._inside, name)
        raise AttributeError(_needs(f"run.{name}"))

    @property
    def experiment(self) -> "_Experiment":
        """The experiment, with its name."""
        return _Experiment(self._inside.experiment.name)

    def get_secret(self, name: str) -> "str | None":
        """The value of a secret of the workspace, or None."""
        found: dict[str, str | None] = self._inside.get_secrets([name])
        return found[name]

    def __enter__(self) -> "_SubmittedRun":  # noqa: PYI034 - Self is newer than some Pythons
        return self

    def __exit__(self, *_: object) -> None:
        """The run's status follows from how its process ends."""

    def __repr__(self) -> str:
        return repr(self._inside)


class _Experiment:
    """The experiment of the run, as far as it is known here."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(_needs(f"run.experiment.{name}"))


def _needs(what: str) -> str:
    return f"{what}: {REASON}"
