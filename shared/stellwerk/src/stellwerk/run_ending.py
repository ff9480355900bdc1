"""How a run that a client drives ends, and what it takes along."""

from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from stellwerk.api import RunView
from stellwerk.run_log_files import LogFiles
from stellwerk.run_records import LogEnd, RunEndRequest
from stellwerk.run_reports import ClientReports, tree
from stellwerk.runstate import TERMINAL

MAX_MESSAGE = 4000


class Ending(ClientReports):
    """``complete``, ``fail`` and ``with run:``."""

    def _prepare(self) -> None:
        super()._prepare()
        self._tracked: list[tuple[str, Path]] = []
        self._log_files: LogFiles | None = None

    def track(self, folder: str | None) -> None:
        """A folder whose files become the run's when it ends; made where it is missing."""
        if folder is not None:
            path = Path(folder).absolute()
            path.mkdir(parents=True, exist_ok=True)
            self._tracked.append((path.name, path))

    def stream_logs(self, folder: str) -> None:
        """A folder whose files are logs of the run, sent while they grow."""
        self._log_files = LogFiles(self._client, self._path, Path(folder).absolute())

    def complete(self, _set_status: bool = True) -> None:
        """Store what was logged and the tracked folders, and end the run as Completed.

        Nothing happens where it has ended so already. Raises ConflictError for a submitted
        run, which ends with its script.
        """
        self._store_tracked()
        if _set_status:
            self._end("Completed")

    def fail(
        self,
        error_details: str | BaseException | None = None,
        error_code: str | None = None,
        _set_status: bool = True,
    ) -> None:
        """End the run as Failed. A submitted run is stopped, and counts as failed then."""
        self._store_tracked()
        if _set_status:
            self._end("Failed", error_code or "", str(error_details or ""))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.complete()
        else:
            self.fail(f"{type(error).__name__}: {error}")

    def _store_tracked(self) -> None:
        """Everything below the tracked folders that the run does not have yet."""
        self.flush()
        if self._view.status in TERMINAL:
            return
        for name, folder in self._tracked:
            files = list(tree(folder, name))
            if files:
                self._give(files, skip=True)

    def _end(
        self, status: Literal["Completed", "Failed"], code: str = "", message: str = ""
    ) -> None:
        logs: tuple[LogEnd, ...] = ()
        if self._log_files is not None and self._view.status not in TERMINAL:
            logs = self._log_files.finish()
        body = RunEndRequest(
            status=status, code=code[:100], message=message[:MAX_MESSAGE], logs=logs
        )
        self._view = self._client.call("POST", f"{self._path}/end", RunView, body=body)
        if self._view.kind == "interactive" and self._view.status not in TERMINAL:
            self._wait_until_ended()

    def _wait_until_ended(self) -> None:
        """Wait for the last event."""
        raise NotImplementedError
