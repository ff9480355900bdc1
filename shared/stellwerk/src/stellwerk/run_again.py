"""Doing again what a run did, on exactly what it had, and comparing what came of it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from stellwerk.answers import FileList, SeriesPage
from stellwerk.api import DatasetFileView, RunRequest, RunView
from stellwerk.client import Client, segment
from stellwerk.errors import ConflictError
from stellwerk.ids import new_id
from stellwerk.rerun import pinned
from stellwerk.rerun_compare import Comparison, Outcome, compare, outcome
from stellwerk.run_base import RunBase
from stellwerk.run_outputs import settled

if TYPE_CHECKING:
    from stellwerk.run import Run


class Again(RunBase):
    """Reruns of a run."""

    def rerun(self, compute_target: str | None = None) -> "Run":
        """Submit the run anew on its recorded lock or image, source, data and arguments.

        ``compute_target`` None is the same cluster. Datasets that its outputs become take no name.
        Raises UserError where the run recorded too little, as one that was never prepared.
        """
        view = self.refresh()
        spec = pinned(view, compute_target)
        request = RunRequest(experiment=view.experiment, spec=spec)
        again = self._client.call("POST", "/runs", RunView, body=request, key=new_id())
        return self._other(again)

    def compare(self, other: "Run") -> Comparison:
        """Whether ``other`` came to the same: files by digest (logs left out), metrics by value.

        Raises ConflictError unless both have completed.
        """
        before = _outcome(self._client, self.refresh())
        return compare(self.id, before, other.id, _outcome(self._client, other.refresh()))


def series_pages(
    client: Client, run_id: str, name: str | None = None, *, recursive: bool = False
) -> Iterator[SeriesPage]:
    """All that a run logged, or one metric of it; ``recursive``: the runs below it too."""
    params = {"name": name, "recursive": "true" if recursive else None, "cursor": None}
    while True:
        page = client.get(f"/runs/{segment(run_id)}/series", SeriesPage, params)
        yield page
        if page.next is None:
            return
        params["cursor"] = page.next


def _outcome(client: Client, view: RunView) -> Outcome:
    view = settled(client, view)
    if view.status != "Completed":
        raise ConflictError(
            f"run {view.run_id[:12]} is {view.status}; only what completed runs came to can be "
            "compared",
            code="run.not_completed",
            field="RUN",
        )
    datasets = {
        f"{name}:{file.path.lstrip('/')}": file.sha256
        for name, produced in view.outputs.items()
        if produced.dataset_id is not None
        for file in client.pages(
            f"/datasets/{segment(produced.dataset_id)}/files", DatasetFileView, {"limit": 1000}
        )
    }
    files = client.get(f"/runs/{segment(view.run_id)}/files", FileList).files
    logged = (each for page in series_pages(client, view.run_id) for each in page.series)
    return outcome(files, logged, datasets)
