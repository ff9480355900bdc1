"""A submitted run seen from inside: its reports go over its socket, everything else by REST."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, Self

from stellwerk import labels
from stellwerk.client import segment
from stellwerk.errors import NotFoundError
from stellwerk.model import Model
from stellwerk.run import Run
from stellwerk.run_inputs import RunInputs
from stellwerk_agent import Run as RunInside
from stellwerk_agent.inputs import direct_names
from stellwerk_agent.reports import Reports

SEEN_S, SEEN_PAUSE_S = 20.0, 0.1
"""How long a file takes at most from this process to the platform's readers, and between looks."""

_around: dict[str, Any] = {}
_making = threading.Lock()


class SubmittedRun(Run):
    """The run around this process. The platform is asked only when something else is wanted."""

    _inside: RunInside
    _own_tags: dict[str, str | None]
    _own_properties: dict[str, str | None]

    @classmethod
    def around(cls, inside: RunInside) -> Self:
        """The one object of this process's run."""
        with _making:
            if inside.id not in _around:
                run = object.__new__(cls)
                run._inside = inside
                run._own_tags, run._own_properties = {}, {}
                run._path = f"/runs/{segment(inside.id)}"
                run._prepare()
                _around[inside.id] = run
            known: Self = _around[inside.id]
            return known

    def __getattr__(self, name: str) -> Any:
        """What is asked for when it is used first: the workspace, the platform's view."""
        if name == "_workspace":
            self._workspace = self._find_workspace()
            return self._workspace
        if name == "_view":
            return self.refresh()
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def _find_workspace(self) -> Any:
        from stellwerk.workspace import Workspace  # noqa: PLC0415 - it imports runs

        return Workspace.from_config()

    @property
    def id(self) -> str:
        """The run's id."""
        return self._inside.id

    @property
    def input_datasets(self) -> RunInputs:
        """Path (mount, download) of every input, or the dataset itself (direct), by its name."""
        return RunInputs(self._inside.input_datasets, direct_names(), lambda: self._workspace)

    @property
    def output_datasets(self) -> dict[str, str]:
        """Folder of every output, by its name."""
        return self._inside.output_datasets

    # --- over the socket ------------------------------------------------------------------------

    upload_file = Reports.upload_file
    upload_files = Reports.upload_files
    upload_folder = Reports.upload_folder
    _record = Reports._record  # noqa: SLF001 - the base's again, not the client's
    _refusal = Reports._refusal  # noqa: SLF001 - same

    def _send(self, line: bytes) -> None:
        self._inside._send(line)  # noqa: SLF001 - this is the same run, seen from further out

    def _store(self, name: str, write: Callable[[IO[bytes]], object]) -> None:
        self._inside._store(name, write)  # noqa: SLF001 - same

    def flush(self, timeout_seconds: float = 300) -> None:
        """Return at once: every record is handed over when it is logged."""
        self._inside.flush(timeout_seconds)

    def tag(self, key: str, value: object = None) -> None:
        """Set a tag; the value is stored as text."""
        self.set_tags({key: value})

    def set_tags(self, tags: dict[str, Any]) -> None:
        """Set several tags."""
        self._inside.set_tags(tags)
        self._own_tags |= labels.texts(tags)

    def get_tags(self) -> dict[str, str | None]:
        """The run's tags now, with those that are on their way from here."""
        return super().get_tags() | self._own_tags

    @property
    def tags(self) -> dict[str, str | None]:
        """The run's tags as last seen, with those set here."""
        return super().tags | self._own_tags

    def remove_tags(self, tags: list[str]) -> None:
        """Remove tags."""
        super().remove_tags(tags)
        for each in tags:
            self._own_tags.pop(each, None)

    def add_properties(self, properties: dict[str, Any]) -> None:
        """Add properties, which never change once they are set."""
        self._inside.add_properties(properties)
        self._own_properties |= labels.texts(properties)

    def get_properties(self) -> dict[str, str | None]:
        """The run's properties now, with those that are on their way from here."""
        return super().get_properties() | self._own_properties

    # --- its model --------------------------------------------------------------------------------

    def register_model(
        self, model_name: str, model_path: str | None = None, *args: Any, **kwargs: Any
    ) -> Model:
        """Make a model version of the run's files at ``model_path`` (None: ``model_name``).

        What lies there in the working folder and is not stored yet is uploaded first.
        """
        path = (model_path or model_name).removeprefix("./").rstrip("/")
        given_up = time.monotonic() + SEEN_S
        on_its_way = False
        while True:
            try:
                return super().register_model(model_name, model_path, *args, **kwargs)
            except NotFoundError as error:
                if error.code != "model.path_not_found" or time.monotonic() > given_up:
                    raise
                if not on_its_way and not self._offer(path):
                    raise
            on_its_way = True
            time.sleep(SEEN_PAUSE_S)

    def _offer(self, path: str) -> bool:
        """Upload what lies at ``path``; whether the run has, or will have, something there."""
        if self._inside.has_file(path):
            return True
        if Path(path).is_file():
            self.upload_file(path, path)
        elif Path(path).is_dir():
            self.upload_folder(path, path)
        else:
            return False
        return True

    # --- its end is its script's ------------------------------------------------------------------

    def complete(self, _set_status: bool = True) -> None:
        """Do nothing: the run's status follows from how its process ends."""

    def fail(
        self,
        error_details: str | BaseException | None = None,
        error_code: str | None = None,
        _set_status: bool = True,
    ) -> None:
        """Do nothing: the run's status follows from how its process ends."""

    def cancel(self) -> None:
        """Do nothing: a run is canceled from outside."""
