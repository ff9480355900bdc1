"""What can be reported about a run, wherever the reports go.

`Run` sends them through the run's socket; the SDK's own run sends them to the platform.
"""

import json
import os
import time

from stellwerk_agent import protocol, uploads
from stellwerk_agent.errors import UserError

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from typing import IO, Any, Callable, Dict, List, Optional


class Reports(object):
    """Values, images, plots and files of a run. Subclasses say where they go."""

    def _send(self, line: bytes) -> "Any":
        """Take one record, a line of `protocol`."""
        raise NotImplementedError

    def _store(self, name: str, write: "Callable[[IO[bytes]], object]") -> None:
        """Keep what `write` writes as file `name`. Raises NameTakenError."""
        raise NotImplementedError

    def _record(self, kind: str, **fields: "Any") -> None:
        """Take one record by its fields; it may name a file that was stored before."""
        self._send(protocol.line(kind, **fields))

    def _refusal(self, text: str) -> Exception:
        """Return the error to raise for a call that cannot mean anything useful."""
        error: "Exception" = UserError(text)
        return error

    def log(
        self, name: str, value: "Any", description: str = "", step: "Optional[int]" = None
    ) -> None:
        """Log one value; values of one name become a series."""
        if isinstance(value, (list, range)) or type(value).__name__ == "generator":
            raise self._refusal(
                "metric '%s': one value, not a %s; use log_list" % (name, type(value).__name__)
            )
        self._send(protocol.scalar_line(self._text(name), value, step, description))

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
            raise self._refusal(
                "table '%s': a dict of columns, not a %s" % (name, type(value).__name__)
            )
        columns = {
            str(column): [protocol.scalar(part) for part in _cells(cells)]
            for column, cells in value.items()
        }
        if len({len(cells) for cells in columns.values()}) > 1:
            raise self._refusal("table '%s': all columns need the same number of values" % name)
        self._metric(name, "table", columns, description)

    def log_image(
        self, name: str, path: "Optional[str]" = None, plot: "Any" = None, description: str = ""
    ) -> None:
        """Log an image: the PNG file at `path`, or `plot`, an object with `savefig`."""
        if (path is None) == (plot is None):
            raise self._refusal("log_image('%s'): give either path or plot" % name)
        write = self._copier(name, path) if plot is None else _drawing(plot)
        self._artifact("image", name, ".png", write, description)

    def log_confusion_matrix(self, name: str, value: "Any", description: str = "") -> None:
        """Log a confusion matrix: a dict of `schema_type`, `data` and the like, or its JSON."""
        self._plot(name, value, description)

    def log_accuracy_table(self, name: str, value: "Any", description: str = "") -> None:
        """Log an accuracy table: a dict of `schema_type`, `data` and the like, or its JSON."""
        self._plot(name, value, description)

    def log_residuals(self, name: str, value: "Any", description: str = "") -> None:
        """Log residuals: a dict of `schema_type`, `data` and the like, or its JSON."""
        self._plot(name, value, description)

    def log_predictions(self, name: str, value: "Any", description: str = "") -> None:
        """Log predictions: a dict of `schema_type`, `data` and the like, or its JSON."""
        self._plot(name, value, description)

    def upload_file(self, name: str, path_or_stream: "Any", datastore_name: "Any" = None) -> None:
        """Keep a file with the run as it is now; `path_or_stream` is a path or a binary stream."""
        del datastore_name  # one store only; accepted because scripts pass it
        name = self._file_name(name)
        self._store(name, self._copier(name, path_or_stream))
        self._record("file", n=name, p=name)

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
            raise self._refusal("folder '%s': there is no folder at '%s'" % (name, path))
        for folder, folders, files in os.walk(path):
            folders.sort()
            for file in sorted(files):
                source = os.path.join(folder, file)
                if os.path.isfile(source) and not os.path.islink(source):
                    self.upload_file(os.path.join(name, os.path.relpath(source, path)), source)

    def _metric(self, name: str, kind: str, value: "Any", description: "Optional[str]") -> None:
        fields = {"d": description} if description else {}
        record = protocol.line("metric", n=self._text(name), t=kind, v=value, s=None, **fields)
        self._send(record)

    def _plot(self, name: str, value: "Any", description: str) -> None:
        """Keep the JSON of a plot as a file."""
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except ValueError:
                raise self._refusal("plot '%s': the text is no JSON" % name)
        if not isinstance(value, dict):
            raise self._refusal(
                "plot '%s': a dict or its JSON, not a %s" % (name, type(value).__name__)
            )
        text = json.dumps(value, default=protocol.plain)
        self._artifact("artifact", name, ".json", lambda out: out.write(text.encode()), description)

    def _artifact(
        self,
        kind: str,
        name: str,
        ending: str,
        write: "Callable[[IO[bytes]], object]",
        description: str,
    ) -> None:
        """Keep a file called after the metric and the time, and log its name."""
        base, stamp = self._file_name(self._text(name)), int(time.time())
        while True:
            file_name = "%s_%d%s" % (base, stamp, ending)
            try:
                self._store(file_name, write)
                break
            except uploads.NameTakenError:
                stamp += 1  # two of one name in one second
        fields = {"d": description} if description else {}
        self._record(kind, n=name, f=file_name, **fields)

    def _file_name(self, name: "Any") -> str:
        try:
            return uploads.clean_name(name)
        except UserError as error:
            raise self._refusal(error.args[0])

    def _copier(self, name: str, source: "Any") -> "Callable[[IO[bytes]], object]":
        try:
            return uploads.copier(name, source)
        except UserError as error:
            raise self._refusal(error.args[0])

    def _text(self, name: "Any") -> str:
        if not isinstance(name, str) or not name:
            raise self._refusal("name: got %r; give a text such as 'loss'" % (name,))
        return protocol.clean_text(name)


def _drawing(plot: "Any") -> "Callable[[IO[bytes]], object]":
    return lambda out: plot.savefig(out, format="png")


def _cells(cells: "Any") -> "Any":
    return cells if hasattr(cells, "__iter__") and not isinstance(cells, str) else [cells]
