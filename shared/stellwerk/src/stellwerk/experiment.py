"""An experiment: a name that runs share, and the place to submit from."""

from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from stellwerk import labels
from stellwerk.api import RunRequest, RunView
from stellwerk.client import segment
from stellwerk.errors import UserError
from stellwerk.git_facts import git_properties
from stellwerk.ids import new_id
from stellwerk.refusals import naming_the_field
from stellwerk.run import Run
from stellwerk.script_run_config import ScriptRunConfig
from stellwerk.snapshot import upload_snapshot

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace


class Experiment:
    """A named collection of runs; it exists as soon as it has one."""

    def __init__(self, workspace: "Workspace", name: str) -> None:
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
            request = RunRequest(experiment=self.name, spec=spec)
        view = client.call("POST", "/runs", RunView, body=request, key=new_id())
        run = Run.of_view(self.workspace, view)
        config.submitted(run)
        return run

    def get_runs(
        self,
        type: str | None = None,  # noqa: A002 - v1's name
        tags: dict[str, str | None] | str | None = None,
        properties: dict[str, str | None] | str | None = None,
        include_children: bool = False,
    ) -> Iterator[Run]:
        """Runs of this experiment, newest first; a text filters by having that tag."""
        del type
        wanted, having = labels.filters(tags), labels.filters(properties)
        params = {
            "experiment": self.name,
            "tag": labels.first(wanted),
            "property": labels.first(having),
        }
        for view in self.workspace.client.pages("/runs", RunView, params):
            fitting = labels.fits(view.tags, wanted) and labels.fits(view.properties, having)
            if fitting and (include_children or view.parent_run_id is None):
                yield Run.of_view(self.workspace, view)
