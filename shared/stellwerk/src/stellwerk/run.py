"""A run as its owner sees it: status, live output, metrics, files, tags, its model."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from stellwerk import labels
from stellwerk.answers import LogList, Series
from stellwerk.api import (
    EnvironmentView,
    ModelRequest,
    ModelView,
    RunEventView,
    RunFileView,
    RunPatch,
    RunView,
)
from stellwerk.client import file_path, segment
from stellwerk.dataset import FileDataset, TabularDataset
from stellwerk.downloads import RemoteFile, download, inside
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.errors import (
    ConflictError,
    NotFoundError,
    RunFailedError,
    StreamingInterruptedError,
)
from stellwerk.log_names import STD_LOG
from stellwerk.metrics import shaped
from stellwerk.model import Model
from stellwerk.refusals import naming_the_field
from stellwerk.run_again import Again, series_pages
from stellwerk.run_children import Children, run_type
from stellwerk.run_details import details
from stellwerk.run_ending import Ending
from stellwerk.run_files import below, single
from stellwerk.run_output import RunPrinter
from stellwerk.run_outputs import output_dataset, settled
from stellwerk.run_snapshot import Snapshots
from stellwerk.runspec import EnvironmentReference
from stellwerk.runstate import TERMINAL
from stellwerk.streams import log_address, run_events
from stellwerk.watch import follow_log, watch
from stellwerk_agent import Run as RunInside
from stellwerk_agent import _OfflineRun

if TYPE_CHECKING:
    from stellwerk.experiment import Experiment
    from stellwerk.workspace import Workspace


class Run(Ending, Again, Children, Snapshots):
    """One run of an experiment. ``Run(experiment, run_id)``; raises NotFoundError."""

    def __init__(self, experiment: "Experiment", run_id: str, *_: object, **__: object) -> None:
        self._workspace = experiment.workspace
        self._path = f"/runs/{segment(run_id)}"
        self._view = self._client.get(self._path, RunView)
        self._prepare()

    @classmethod
    def get(cls, workspace: "Workspace", run_id: str) -> "Run":
        """A run by its id. Raises NotFoundError."""
        return cls.of_view(workspace, workspace.client.get(f"/runs/{segment(run_id)}", RunView))

    @staticmethod
    def get_context(allow_offline: bool = True) -> "Run | _OfflineRun":
        """The run this process belongs to; outside a run one that only prints."""
        inside = RunInside.get_context(allow_offline=allow_offline)
        if isinstance(inside, _OfflineRun):
            return inside
        from stellwerk.submitted_run import SubmittedRun  # noqa: PLC0415 - it is a Run itself

        return SubmittedRun.around(inside)

    def __repr__(self) -> str:
        view = self._view
        return (
            f"Run(Experiment: {view.experiment},\nId: {view.run_id},\nType: {self.type},\n"
            f"Status: {view.status})"
        )

    def _repr_html_(self) -> str:
        view = self._view
        cells = (view.experiment, view.run_id, str(self.type), view.status, self.get_portal_url())
        heads = ("Experiment", "Id", "Type", "Status", "Details")
        return (
            "<table><tr>"
            + "".join(f"<th>{head}</th>" for head in heads)
            + "</tr><tr>"
            + "".join(f"<td>{escape(cell)}</td>" for cell in cells[:-1])
            + f'<td><a href="{escape(cells[-1])}" target="_blank" rel="noopener">Run page</a></td>'
            + "</tr></table>"
        )

    # --- what it is ---------------------------------------------------------------------------

    @property
    def type(self) -> str | None:
        """``azureml.scriptrun``; None for a run that a client drives."""
        return run_type(self._view)

    @property
    def number(self) -> int | None:
        """The run's number within its experiment, once it has one."""
        return self._view.number

    @property
    def display_name(self) -> str | None:
        """The name for people."""
        return self._view.display_name

    @display_name.setter
    def display_name(self, name: str) -> None:
        self._patch(display_name=name)

    @property
    def name(self) -> str | None:
        """The same under its older name."""
        return self.display_name

    @property
    def status(self) -> str:
        """The run's status, asked until it is a final one."""
        return self._view.status if self._view.status in TERMINAL else self.get_status()

    @property
    def phases(self) -> dict[str, float]:
        """Seconds spent preparing, scaling, starting, running, post_processing."""
        return dict(self.refresh().phases)

    def get_status(self) -> str:
        """The run's status now."""
        return self.refresh().status

    def get_details(self) -> dict[str, Any]:
        """Everything about the run under the v1 SDK's keys."""
        view = self.refresh()
        answer = self._client.get(f"{self._path}/logs", LogList)
        addresses = {
            each.path: self._client.address(log_address(self.id, each.path)) for each in answer.logs
        }
        return details(view, addresses, self._registered_definition(view))

    def _registered_definition(self, view: RunView) -> EnvironmentDefinition | None:
        """That of the environment which the run names, unless it is gone."""
        named = view.spec.environment if view.spec else None
        if not isinstance(named, EnvironmentReference):
            return None
        version = view.image.version if view.image and view.image.version else named.version
        with suppress(NotFoundError):
            path = f"/environments/{segment(named.name)}"
            return self._client.get(path, EnvironmentView, {"version": version}).definition
        return None

    def get_details_with_logs(self) -> dict[str, Any]:
        """``get_details()`` with the text of each log in place of its address."""
        content = self.get_details()
        texts = {path: b"".join(self.logs(path=path)) for path in content["logFiles"]}
        content["logFiles"] = {path: text.decode(errors="replace") for path, text in texts.items()}
        return content

    def sbom(self) -> dict[str, Any]:
        """The bill of materials of what it ran in (CycloneDX 1.6). Raises NotFoundError."""
        found: dict[str, Any] = json.loads(self._client.content(f"{self._path}/sbom"))
        return found

    def get_all_logs(self, destination: str | None = None) -> list[str]:
        """Fetch all logs to the folder ``destination`` (one called like the run); their paths."""
        folder = Path(destination or f"{self.id}_logs")
        found = self._client.get(f"{self._path}/logs", LogList).logs
        for log in found:
            path = inside(folder, log.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"".join(self.logs(path=log.path)))
        return [str(folder / log.path) for log in found]

    def get_portal_url(self) -> str:
        """Address of the page that shows the run; it asks for a token."""
        return f"{self._client.connection.url}{self._path}"

    # --- as it happens ------------------------------------------------------------------------

    def events(self, after: int = 0) -> Iterator[RunEventView]:
        """Status events, live, until the run has ended."""
        return run_events(self._client, self.id, after)

    def logs(self, follow_it: bool = False, path: str = STD_LOG) -> Iterator[bytes]:
        """The bytes of a log; with ``follow_it`` live, until the run is over.

        A run that is tried again goes on with the later attempt's log. Raises NotFoundError for a
        log that the run does not have, naming those it has.
        """
        try:
            yield from self._log(path, follow_it)
        except NotFoundError as error:
            if error.code != "log.not_found":
                raise
            there = self._client.get(f"{self._path}/logs", LogList).logs
            raise NotFoundError(
                f"The run has no log {path!r} (yet). It has: "
                f"{', '.join(each.path for each in there) or 'none'}",
                code=error.code,
                field="path",
            ) from error

    def _log(self, path: str, follow_it: bool) -> Iterator[bytes]:
        if follow_it:
            yield from follow_log(self._client, self.id, path)
            return
        address = log_address(self.id, path)
        with self._client.stream(address, {"offset": 0}) as response:
            yield from response.iter_bytes()

    def wait_for_completion(
        self,
        show_output: bool = False,
        wait_post_processing: bool = False,
        raise_on_error: bool = True,
        *,
        on_event: Callable[[RunEventView], None] | None = None,
        out: TextIO | None = None,
        raw: bool = False,
    ) -> dict[str, Any]:
        """Wait until the run has ended and everything of it is stored; returns get_details().

        ``show_output`` prints logs live, to ``out`` (stdout); on a terminal without their control
        sequences unless ``raw``. ``on_event`` is called with every status event. Raises
        RunFailedError where the run failed and ``raise_on_error``, StreamingInterruptedError after
        Ctrl-C while output is shown; the run goes on then.
        """
        del wait_post_processing  # a run has ended here only when its files are stored
        printer = None
        if show_output:
            printer = RunPrinter(self.id, self.get_portal_url(), out or sys.stdout, raw=raw)
        if printer is None:
            for event in self.events():
                if on_event:
                    on_event(event)
        else:
            self._print_until_end(printer, on_event)
        self._view = settled(self._client, self._view)
        content = self.get_details()
        if printer is not None:
            printer.end(content, with_error=not raise_on_error)
        if self._view.status == "Failed" and raise_on_error:
            text = json.dumps(content.get("error"), indent=4)
            raise RunFailedError(f"Activity Failed:\n{text}", content)
        return content

    def _print_until_end(
        self, printer: RunPrinter, on_event: Callable[[RunEventView], None] | None
    ) -> None:
        printer.begin()
        try:
            for item in watch(self._client, self.id):
                if not isinstance(item, RunEventView):
                    printer.log(item)
                elif on_event:
                    on_event(item)
        except KeyboardInterrupt as error:
            raise StreamingInterruptedError(
                "The output streaming for the run interrupted.\nBut the run is still executing on "
                f"the compute target. Watch it again: stellwerk run logs -f {self.id}\n"
                f"Cancel it: stellwerk run cancel {self.id}"
            ) from error

    def _wait_until_ended(self) -> None:
        for _ in self.events():
            pass
        self.refresh()

    def output_dataset(self, name: str) -> FileDataset | TabularDataset:
        """The dataset of one of the run's outputs. Raises UserError saying why there is none."""
        return output_dataset(self._workspace, self.refresh(), name)

    def cancel(self) -> None:
        """Ask for the run's end; it becomes Canceled. Nothing happens where it has ended."""
        if self.status in TERMINAL:
            return
        try:
            self._view = self._client.call("POST", f"{self._path}/cancel", RunView)
        except ConflictError:
            self.refresh()  # it ended in this moment

    # --- metrics ------------------------------------------------------------------------------

    def get_metrics(
        self,
        name: str | None = None,
        recursive: bool = False,
        run_type: str | None = None,
        populate: bool = False,
    ) -> dict[str, Any]:
        """Logged values by name: logged once a scalar, logged n times a list (v1's shapes).

        ``recursive``: ``{run id: metrics}`` of this run and everything below it.
        """
        del run_type, populate
        self.flush()
        found: dict[str, list[Series]] = {self.id: []}
        for page in series_pages(self._client, self.id, name, recursive=recursive):
            for run_id in page.runs:
                found.setdefault(run_id, [])
            for each in page.series:
                found[each.run_id].append(each)
        metrics = {run_id: shaped(series, run_id) for run_id, series in found.items()}
        return metrics if recursive else metrics[self.id]

    # --- files --------------------------------------------------------------------------------

    def get_file_names(self) -> list[str]:
        """Names of the run's files."""
        return [each.path for each in self.files()]

    def download_file(
        self,
        name: str,
        output_file_path: str | None = None,
        *,
        show_progress: bool = False,
    ) -> None:
        """Fetch one file; None: its last name part in the current folder; a folder is allowed.

        Raises NotFoundError listing what there is.
        """
        self._download([single(self.files(), name, output_file_path)], show=show_progress)

    def download_files(
        self,
        prefix: str | None = None,
        output_directory: str | None = None,
        output_paths: list[str] | None = None,
        batch_size: int = 100,
        append_prefix: bool = True,
        *,
        show_progress: bool = False,
    ) -> list[str]:
        """Fetch all files below ``prefix`` and return their local paths.

        ``append_prefix`` False leaves the prefix out of the local paths; ``output_paths`` names a
        local path for each file instead. Raises NotFoundError where nothing has the prefix.
        """
        del batch_size
        wanted = below(
            self.files(),
            prefix,
            Path(output_directory or "."),
            output_paths=output_paths,
            append_prefix=append_prefix,
        )
        self._download(wanted, show=show_progress)
        return [str(target) for _, target in wanted]

    def _download(self, wanted: list[tuple[RunFileView, Path]], *, show: bool) -> None:
        remote = [
            RemoteFile(f"{self._path}/files/{file_path(file.path)}", target, file.size, file.sha256)
            for file, target in wanted
        ]
        download(self._client, remote, label=f"Files of run {self.id[:8]}", show=show)

    # --- tags and properties ------------------------------------------------------------------

    def tag(self, key: str, value: object = None) -> None:
        """Set one tag; the value is stored as text."""
        self.set_tags({key: value})

    def set_tags(self, tags: dict[str, Any]) -> None:
        """Set several tags; others stay."""
        self._patch(tags=labels.texts(tags))

    def remove_tags(self, tags: list[str]) -> None:
        """Remove tags."""
        self._patch(remove_tags=tuple(tags))

    def get_tags(self) -> dict[str, str | None]:
        """The run's tags now."""
        return dict(self.refresh().tags)

    @property
    def tags(self) -> dict[str, str | None]:
        """The run's tags as last seen."""
        return dict(self._view.tags)

    def add_properties(self, properties: dict[str, Any]) -> None:
        """Add properties. Raises ConflictError where one exists already: they never change."""
        self._patch(properties=labels.texts(properties))

    def get_properties(self) -> dict[str, str | None]:
        """The run's properties now."""
        return dict(self.refresh().properties)

    @property
    def properties(self) -> dict[str, str | None]:
        """The run's properties as last seen."""
        return dict(self._view.properties)

    def _patch(self, **change: Any) -> None:
        with naming_the_field():
            patch = RunPatch(**change)
        self._view = self._client.call("PATCH", self._path, RunView, body=patch)

    # --- what its workspace has ------------------------------------------------------------------

    def get_secret(self, name: str) -> str:
        """The value of a secret of the workspace. Raises NotFoundError."""
        return self._workspace.get_default_keyvault().get_secret(name)

    def get_secrets(self, secrets: list[str]) -> dict[str, str | None]:
        """Values of several secrets by name; None for those that are not there."""
        return self._workspace.get_default_keyvault().get_secrets(secrets)

    # --- its model ----------------------------------------------------------------------------

    def register_model(
        self,
        model_name: str,
        model_path: str | None = None,
        tags: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        model_framework: str | None = None,
        model_framework_version: str | None = None,
        description: str | None = None,
        datasets: list[tuple[str, FileDataset]] | None = None,
    ) -> Model:
        """Make a model version of the run's files at ``model_path`` (None: ``model_name``)."""
        with naming_the_field():
            request = ModelRequest(
                name=model_name,
                run_id=self.id,
                path=(model_path or model_name).removeprefix("./").rstrip("/"),
                description=description,
                tags=labels.texts(tags),
                properties=labels.texts(properties),
                framework=model_framework,
                framework_version=model_framework_version,
                datasets={role: dataset.id for role, dataset in datasets or ()},
            )
        view = self._client.call("POST", "/models", ModelView, body=request)
        return self._model(view)

    def _model(self, view: ModelView) -> Model:
        return Model.of_view(self._workspace, view)
