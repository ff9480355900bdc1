"""The run outside a run: every call prints what it would have stored."""

# ruff: noqa: ARG002  the signatures are those of Run; only the shown parts are used

import binascii
import os

TYPE_CHECKING = False  # typing itself would cost milliseconds in every run
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Any, Dict, List, Optional, Type


class _OfflineRun(object):
    """Stands in for `Run` so that a script runs unchanged on a laptop."""

    def __init__(self, run_id: "Optional[str]" = None) -> None:
        self._id = run_id or "OfflineRun_" + _random_id()

    @property
    def id(self) -> str:
        """`OfflineRun_` and a random id."""
        return self._id

    def log(self, name: str, value: "Any", description: str = "", step: "Any" = None) -> None:
        """Print the metric."""
        _attempted_metric("scalar", name, value)

    def log_list(self, name: str, value: "Any", description: str = "") -> None:
        """Print the metric."""
        _attempted_metric("list", name, value)

    def log_row(self, name: str, description: "Optional[str]" = None, **kwargs: "Any") -> None:
        """Print the metric."""
        _attempted_metric("row", name, kwargs)

    def log_table(self, name: str, value: "Any", description: str = "") -> None:
        """Print the metric."""
        _attempted_metric("table", name, value)

    def log_image(
        self, name: str, path: "Any" = None, plot: "Any" = None, description: str = ""
    ) -> None:
        """Print the metric."""
        _attempted_metric("image", name, path if path is not None else plot)

    def log_confusion_matrix(self, name: str, value: "Any", description: str = "") -> None:
        """Print the metric."""
        _attempted_metric("confusion_matrix", name, value)

    def log_accuracy_table(self, name: str, value: "Any", description: str = "") -> None:
        """Print the metric."""
        _attempted_metric("accuracy_table", name, value)

    def log_residuals(self, name: str, value: "Any", description: str = "") -> None:
        """Print the metric."""
        _attempted_metric("residual", name, value)

    def log_predictions(self, name: str, value: "Any", description: str = "") -> None:
        """Print the metric."""
        _attempted_metric("predictions", name, value)

    def upload_file(self, name: str, path_or_stream: "Any", datastore_name: "Any" = None) -> None:
        """Print name and path."""
        print("Attempted to track file {} at {}".format(name, path_or_stream))

    def upload_files(
        self,
        names: "List[str]",
        paths: "List[str]",
        return_artifacts: bool = False,
        timeout_seconds: "Any" = None,
        datastore_name: "Any" = None,
    ) -> None:
        """Print names and paths."""
        text = "Attempted to track files {} at {} with timeout {}"
        print(text.format(names, paths, timeout_seconds))

    def upload_folder(self, name: str, path: str, datastore_name: "Any" = None) -> None:
        """Print name and path."""
        print("Attempted to track folder {} at {}".format(name, path))

    def tag(self, key: str, value: "Any" = None) -> None:
        """Print the tag."""
        print("Attempted to add tag {} with value {}".format(key, value))

    def set_tags(self, tags: "Dict[str, Any]") -> None:
        """Print the tags."""
        print("Attempted to set tags {}".format(tags))

    def add_properties(self, properties: "Dict[str, Any]") -> None:
        """Print the properties."""
        print("Attempted to add properties {}".format(properties))

    def child_run(
        self, name: "Optional[str]" = None, run_id: "Optional[str]" = None
    ) -> "_OfflineRun":
        """Return another one that prints."""
        return _OfflineRun(run_id)

    def flush(self, timeout_seconds: float = 300) -> None:
        """Do nothing."""

    def complete(self) -> None:
        """Do nothing."""

    def fail(self, error_details: "Any" = None, error_code: "Any" = None) -> None:
        """Do nothing."""

    def cancel(self) -> None:
        """Do nothing."""

    def __enter__(self) -> "_OfflineRun":  # noqa: PYI034  Self is newer than 3.6
        print("[START] Run {} context".format(self._id))
        return self

    def __exit__(
        self,
        kind: "Optional[Type[BaseException]]",
        error: "Optional[BaseException]",
        trace: "Optional[TracebackType]",
    ) -> None:
        print("[STOP] Run {} context".format(self._id))


def _attempted_metric(kind: str, name: str, value: "Any") -> None:
    print("Attempted to log {} metric {}:\n{}".format(kind, name, value))


def _random_id() -> str:
    """Return a random UUID's text; the uuid module would cost milliseconds."""
    raw = bytearray(os.urandom(16))
    raw[6], raw[8] = raw[6] & 0x0F | 0x40, raw[8] & 0x3F | 0x80
    text = binascii.hexlify(bytes(raw)).decode()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
