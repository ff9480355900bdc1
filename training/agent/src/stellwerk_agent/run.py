"""The run around this process: `Run.get_context()` and what can be reported through it."""

import os

from stellwerk_agent import protocol, uploads, vault
from stellwerk_agent.errors import RunEnvironmentError, UserError
from stellwerk_agent.inputs import named_paths, output_paths
from stellwerk_agent.offline import _OfflineRun
from stellwerk_agent.reports import Reports
from stellwerk_agent.transport import Transport

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from types import TracebackType
    from typing import IO, Any, Callable, Dict, List, Optional, Type, Union

_runs: "Dict[str, Run]" = {}


class Experiment(object):
    """The experiment a run belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name


class Run(Reports):
    """A submitted run, seen from inside. Values are stored at once; there is nothing to flush."""

    def __init__(self, run_id: str, transport: Transport, uploads_folder: str) -> None:
        self._id = run_id
        self._transport = transport
        self._uploads = uploads_folder
        self._properties: "Dict[str, Optional[str]]" = {}

    @staticmethod
    def get_context(allow_offline: bool = True) -> "Union[Run, _OfflineRun]":
        """Return the run this process belongs to; outside a run one that only prints.

        Raises RunEnvironmentError outside a run if `allow_offline` is false.
        """
        run_id, socket_path = (
            os.environ.get("STELLWERK_RUN_ID"),
            os.environ.get("STELLWERK_RUN_SOCKET"),
        )
        if not run_id or not socket_path:
            if allow_offline:
                return _OfflineRun()
            raise RunEnvironmentError(
                "no run here: STELLWERK_RUN_ID and STELLWERK_RUN_SOCKET are not set;"
                " submit the script, or allow_offline=True prints instead"
            )
        if run_id not in _runs:
            folder = os.environ.get("STELLWERK_UPLOADS_DIR") or os.path.join(
                os.path.dirname(socket_path), "uploads"
            )
            _runs[run_id] = Run(run_id, Transport(socket_path), folder)
        return _runs[run_id]

    @property
    def id(self) -> str:
        """The run's id."""
        return self._id

    @property
    def experiment(self) -> Experiment:
        """The experiment, with its name."""
        name = os.environ.get("STELLWERK_EXPERIMENT") or os.environ.get("AZUREML_ARM_PROJECT_NAME")
        return Experiment(name or "")

    @property
    def parent(self) -> None:
        """Submitted runs have no parent."""
        return None

    @property
    def input_datasets(self) -> "Dict[str, str]":
        """Path (mount, download) or id (direct) of every input, by its name."""
        return named_paths()

    @property
    def output_datasets(self) -> "Dict[str, str]":
        """Folder of every output, by its name."""
        return output_paths()

    def _send(self, line: bytes) -> bool:
        return self._transport.send(line)

    def _store(self, name: str, write: "Callable[[IO[bytes]], object]") -> None:
        uploads.fill(self._uploads, name, write)

    def has_file(self, name: str) -> bool:
        """Whether a file or folder of that name was uploaded by a process of this run."""
        return os.path.exists(os.path.join(self._uploads, *name.split("/")))

    def tag(self, key: str, value: "Any" = None) -> None:
        """Set a tag; the value is stored as text."""
        stored = None if value is None else protocol.clean_text(str(value))
        self._transport.send(protocol.line("tag", n=self._text(key), v=stored))

    def set_tags(self, tags: "Dict[str, Any]") -> None:
        """Set several tags."""
        for key, value in tags.items():
            self.tag(key, value)

    def add_properties(self, properties: "Dict[str, Any]") -> None:
        """Add properties, which never change once they are set."""
        for key, value in properties.items():
            stored = None if value is None else protocol.clean_text(str(value))
            if self._properties.setdefault(self._text(key), stored) != stored:
                raise UserError("property '%s': already set; properties never change" % key)
            self._transport.send(protocol.line("property", n=key, v=stored))

    def get_secret(self, name: str) -> str:
        """Return the value of a secret of the workspace. Raises UserError where there is none."""
        value = vault.read(name)
        if value is None:
            raise UserError("secret '%s': the workspace has none of that name" % name)
        return value

    def get_secrets(self, secrets: "List[str]") -> "Dict[str, Optional[str]]":
        """Return values by name, None for those that are not there."""
        return {name: vault.read(name) for name in secrets}

    def flush(self, timeout_seconds: float = 300) -> None:
        """Return at once: every record is handed over when it is logged."""

    def complete(self) -> None:
        """Do nothing: the run's status follows from how its process ends."""

    def fail(
        self, error_details: "Any" = None, error_code: "Any" = None, _set_status: bool = True
    ) -> None:
        """Do nothing: the run's status follows from how its process ends."""

    def cancel(self) -> None:
        """Do nothing: a run is canceled from outside."""

    def __enter__(self) -> "Run":  # noqa: PYI034  Self is newer than 3.6
        return self

    def __exit__(
        self,
        kind: "Optional[Type[BaseException]]",
        error: "Optional[BaseException]",
        trace: "Optional[TracebackType]",
    ) -> None:
        self.complete() if error is None else self.fail(error)

    def __repr__(self) -> str:
        return "Run(Experiment: %s,\nId: %s)" % (self.experiment.name, self._id)
