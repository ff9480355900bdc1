"""The run around this process: `Run.get_context()` and what can be reported through it."""

import os

from stellwerk_agent import protocol, uploads
from stellwerk_agent.errors import RunEnvironmentError, UserError
from stellwerk_agent.inputs import named_paths, output_paths
from stellwerk_agent.offline import _OfflineRun
from stellwerk_agent.transport import Transport

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Dict, List, Optional, Type, Union

_runs: "Dict[str, Run]" = {}


class Experiment(object):
    """The experiment a run belongs to."""

    def __init__(self, name: str) -> None:
        self.name = name


class Run(object):
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

    def log(
        self, name: str, value: "Any", description: str = "", step: "Optional[int]" = None
    ) -> None:
        """Log one value; values of one name become a series."""
        if isinstance(value, (list, range)) or type(value).__name__ == "generator":
            raise UserError(
                "metric '%s': one value, not a %s; use log_list" % (name, type(value).__name__)
            )
        self._transport.send(protocol.scalar_line(_text(name), value, step, description))

    def log_list(self, name: str, value: "Any", description: str = "") -> None:
        """Log a list (any iterable) of values."""
        self._metric(name, "list", [protocol.scalar(part) for part in value], description)

    def log_row(self, name: str, description: "Optional[str]" = None, **kwargs: "Any") -> None:
        """Log one row: a value for each column given as a keyword."""
        row = {column: protocol.scalar(value) for column, value in kwargs.items()}
        self._metric(name, "row", row, description)

    def log_table(self, name: str, value: "Dict[str, Any]", description: str = "") -> None:
        """Log a table: a dict of columns, each a list of values of the same length."""
        if not isinstance(value, dict):
            raise UserError(
                "table '%s': a dict of columns, not a %s" % (name, type(value).__name__)
            )
        columns = {
            str(column): [protocol.scalar(part) for part in _cells(cells)]
            for column, cells in value.items()
        }
        if len({len(cells) for cells in columns.values()}) > 1:
            raise UserError("table '%s': all columns need the same number of values" % name)
        self._metric(name, "table", columns, description)

    def log_image(
        self, name: str, path: "Optional[str]" = None, plot: "Any" = None, description: str = ""
    ) -> None:
        """Log an image: the PNG file at `path`, or `plot`, an object with `savefig`."""
        file_name = uploads.store_image(self._uploads, _text(name), path, plot)
        fields = {"d": description} if description else {}
        self._transport.send(protocol.line("image", n=name, f=file_name, **fields))

    def upload_file(self, name: str, path_or_stream: "Any", datastore_name: "Any" = None) -> None:
        """Keep a file with the run as it is now; `path_or_stream` is a path or a binary stream."""
        del datastore_name  # one store only; accepted because scripts pass it
        name = uploads.clean_name(name)
        uploads.store(self._uploads, name, path_or_stream)
        self._transport.send(protocol.line("file", n=name, p=name))

    def upload_files(
        self,
        names: "List[str]",
        paths: "List[str]",
        return_artifacts: bool = False,
        timeout_seconds: "Optional[float]" = None,
        datastore_name: "Any" = None,
    ) -> None:
        """Keep several files; both lists have the same length."""
        del return_artifacts, timeout_seconds, datastore_name  # copies are made at once
        if len(names) != len(paths):
            raise TypeError("upload_files: %d names for %d paths" % (len(names), len(paths)))
        for name, path in zip(names, paths):  # noqa: B905  strict= is newer than 3.6
            self.upload_file(name, path)

    def upload_folder(self, name: str, path: str, datastore_name: "Any" = None) -> None:
        """Keep every regular file below `path`, under `name`/; links are left out."""
        del datastore_name
        if not os.path.isdir(path):
            raise UserError("folder '%s': there is no folder at '%s'" % (name, path))
        for folder, folders, files in os.walk(path):
            folders.sort()
            for file in sorted(files):
                source = os.path.join(folder, file)
                if os.path.isfile(source) and not os.path.islink(source):
                    self.upload_file(os.path.join(name, os.path.relpath(source, path)), source)

    def tag(self, key: str, value: "Any" = None) -> None:
        """Set a tag; the value is stored as text."""
        stored = None if value is None else protocol.clean_text(str(value))
        self._transport.send(protocol.line("tag", n=_text(key), v=stored))

    def set_tags(self, tags: "Dict[str, Any]") -> None:
        """Set several tags."""
        for key, value in tags.items():
            self.tag(key, value)

    def add_properties(self, properties: "Dict[str, Any]") -> None:
        """Add properties, which never change once they are set."""
        for key, value in properties.items():
            stored = None if value is None else protocol.clean_text(str(value))
            if self._properties.setdefault(_text(key), stored) != stored:
                raise UserError("property '%s': already set; properties never change" % key)
            self._transport.send(protocol.line("property", n=key, v=stored))

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

    def _metric(self, name: str, kind: str, value: "Any", description: "Optional[str]") -> None:
        fields = {"d": description} if description else {}
        record = protocol.line("metric", n=_text(name), t=kind, v=value, s=None, **fields)
        self._transport.send(record)


def _text(name: "Any") -> str:
    if not isinstance(name, str) or not name:
        raise UserError("name %r: a text that is not empty" % (name,))
    return protocol.clean_text(name)


def _cells(cells: "Any") -> "Any":
    return cells if hasattr(cells, "__iter__") and not isinstance(cells, str) else [cells]
