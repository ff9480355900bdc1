"""An experiment: a name that runs share, and the place to submit from."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from stellwerk import labels
from stellwerk.api import RunRequest, RunView
from stellwerk.client import segment
from stellwerk.errors import UserError
from stellwerk.git_facts import git_properties
from stellwerk.ids import new_id
from stellwerk.refusals import naming_the_field
from stellwerk.run import Run
from stellwerk.run_children import begin, wanted_runs
from stellwerk.runspec import EnvironmentReference, InlineSource, RunSpec, SnapshotSource
from stellwerk.script_run_config import ScriptRunConfig
from stellwerk.snapshot import collect, upload_snapshot

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

OUTPUTS, LOGS = "outputs", "logs"


class Experiment:
    """A named collection of runs; it exists as soon as it has one."""

    run_class: ClassVar[type[Run]] = Run
    """What runs of it are; a subclass may have one of its own."""

    def __init__(self, workspace: "Workspace", name: str, **_: object) -> None:
        if isinstance(workspace, str):
            raise UserError(
                f"workspace: got the text {workspace!r}; write Experiment(workspace, name)",
                field="workspace",
            )
        self.workspace = workspace
        self.name = name

    def __repr__(self) -> str:
        return f"Experiment(Name: {self.name},\nWorkspace: {self.workspace.name})"

    def _repr_html_(self) -> str:
        link = f'<a href="{escape(self.get_portal_url())}" target="_blank" rel="noopener">'
        return (
            "<table><tr><th>Name</th><th>Workspace</th><th>Details</th></tr><tr>"
            f"<td>{escape(self.name)}</td><td>{escape(self.workspace.name)}</td>"
            f"<td>{link}Runs</a></td></tr></table>"
        )

    def get_portal_url(self) -> str:
        """Address of the page that lists the experiment's runs; it asks for a token."""
        return f"{self.workspace.get_portal_url()}/{segment(self.name)}"

    def submit(
        self,
        config: ScriptRunConfig,
        tags: dict[str, str | None] | None = None,
        *,
        parent_run_id: str | None = None,
        show_progress: bool = False,
        **kwargs: object,
    ) -> Run:
        """Upload the source and start a run. Returns as soon as it is accepted.

        Raises UserError (NotFoundError) naming the field that is wrong; nothing has been
        started then.
        """
        if kwargs:
            raise UserError(
                f"submit: unknown argument {', '.join(sorted(kwargs))}", code="unsupported"
            )
        if not isinstance(config, ScriptRunConfig):
            raise UserError(
                f"config: got {type(config).__name__}; give a ScriptRunConfig", field="config"
            )
        config.check()
        client = self.workspace.client
        source = upload_snapshot(client, Path(config.source_directory), show=show_progress)
        spec = config.spec(client, source.digest, labels.texts(tags))
        spec = spec.model_copy(update={"properties": git_properties(Path(config.source_directory))})
        with naming_the_field():
            request = RunRequest(experiment=self.name, spec=spec, parent_run_id=parent_run_id)
        view = client.call("POST", "/runs", RunView, body=request, key=new_id())
        run = self.run_class.of_view(self.workspace, view)
        config.submitted(run)
        return run

    def warm(self, environment: str, version: int | None, compute: str) -> Run:
        """A run that does nothing but load the frameworks of a registered environment."""
        spec = RunSpec(
            source=InlineSource(inline={"warm.py": "pass\n"}),
            script="warm.py",
            environment=EnvironmentReference(name=environment, version=version),
            target=compute,
            warm="require",
        )
        request = RunRequest(experiment=self.name, spec=spec)
        view = self.workspace.client.call("POST", "/runs", RunView, body=request, key=new_id())
        return self.run_class.of_view(self.workspace, view)

    def start_logging(
        self,
        *_: object,
        outputs: str | bool | None = None,
        snapshot_directory: str | None = ".",
        display_name: str | None = None,
        tags: dict[str, Any] | None = None,
        properties: dict[str, Any] | None = None,
        **kwargs: object,
    ) -> Run:
        """Begin a run that this process drives: Running at once, over with ``complete()``.

        ``snapshot_directory`` is stored as its source (None: nothing). Everything that lies in
        ``./outputs`` (or ``outputs``; False: nothing) at the end becomes the run's; files under
        ``./logs`` are logs of it, sent while they grow.
        Raises UserError source.too_large.
        """
        if kwargs:
            raise UserError(
                f"start_logging: unknown argument {', '.join(sorted(kwargs))}", code="unsupported"
            )
        client, source = self.workspace.client, None
        given = labels.texts(properties)
        if snapshot_directory is not None:
            folder = Path(snapshot_directory)
            if collect(folder):
                source = SnapshotSource(snapshot=upload_snapshot(client, folder).digest)
            given = git_properties(folder) | given
        with naming_the_field():
            spec = RunSpec(
                kind="interactive",
                source=source,
                display_name=display_name,
                tags=labels.texts(tags),
                properties=given,
            )
        view = begin(client, self.name, spec)
        run = self.run_class.of_view(self.workspace, view)
        if outputs is not False:
            run.track(outputs if isinstance(outputs, str) else OUTPUTS)
        run.stream_logs(LOGS)
        return run

    def get_runs(
        self,
        type: str | None = None,  # noqa: A002 - v1's name
        tags: dict[str, str | None] | str | None = None,
        properties: dict[str, str | None] | str | None = None,
        include_children: bool = False,
    ) -> Iterator[Run]:
        """Runs of this experiment, newest first; a text filters by having that tag."""
        params = {
            "experiment": self.name,
            "tag": labels.first(labels.filters(tags)),
            "property": labels.first(labels.filters(properties)),
        }
        views = self.workspace.client.pages("/runs", RunView, params)
        for view in wanted_runs(views, type, tags, properties):
            if include_children or view.parent_run_id is None:
                yield self.run_class.of_view(self.workspace, view)
