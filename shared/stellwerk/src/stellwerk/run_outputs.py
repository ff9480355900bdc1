"""The datasets a run has made of its outputs. They are known a moment after it has completed."""

import time
from typing import TYPE_CHECKING

from stellwerk.api import RunView
from stellwerk.client import Client, pause_before, segment
from stellwerk.dataset import Dataset, FileDataset, TabularDataset
from stellwerk.errors import NotFoundError, UserError

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

PATIENCE_S = 20.0


def settled(client: Client, view: RunView) -> RunView:
    """The run, when the datasets of its outputs are known; waits up to 20 s for them."""
    path = f"/runs/{segment(view.run_id)}"
    if view.spec is not None and not view.spec.outputs:
        return view
    view = client.get(path, RunView)
    began, attempt = time.monotonic(), 0
    while _owed(view) and time.monotonic() - began < PATIENCE_S:
        time.sleep(pause_before(attempt))
        attempt += 1
        view = client.get(path, RunView)
    return view


def output_dataset(
    workspace: "Workspace", view: RunView, name: str
) -> FileDataset | TabularDataset:
    """The dataset of one output. Raises UserError (NotFoundError) saying why there is none."""
    view = settled(workspace.client, view)
    asked = view.spec.outputs if view.spec else {}
    if name not in asked:
        raise NotFoundError(
            f"the run has no output {name!r}; its outputs are {', '.join(asked) or 'none'}",
            code="output.not_found",
            field="name",
        )
    made = view.outputs.get(name)
    if made is None or made.dataset_id is None:
        reasons = [text for text in view.warnings if text.startswith(f"output {name!r}")]
        why = reasons[0] if reasons else f"the run is {view.status}"
        raise UserError(f"output {name!r} is no dataset: {why}", code="output.not_made")
    if made.name is not None and made.version is not None:
        return Dataset.get_by_name(workspace, made.name, made.version)
    return Dataset.get_by_id(workspace, made.dataset_id)


def _owed(view: RunView) -> bool:
    wanted = view.spec.outputs if view.spec else {}
    return view.status == "Completed" and bool(wanted) and not view.outputs
