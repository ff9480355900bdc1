"""Runs below a run: made from it, and found again."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from stellwerk import labels
from stellwerk.api import RunRequest, RunView
from stellwerk.client import Client
from stellwerk.errors import UserError
from stellwerk.ids import new_id
from stellwerk.refusals import naming_the_field
from stellwerk.run_base import RunBase
from stellwerk.runspec import RunSpec

if TYPE_CHECKING:
    from stellwerk.run import Run
    from stellwerk.script_run_config import ScriptRunConfig

MOST_CHILDREN = 100
PARALLEL = 8
NUMBER_TAG = "azureml.batch_child_number"
SCRIPT = "azureml.scriptrun"


def run_type(view: RunView) -> str | None:
    """A run's type by its v1 name; None for one that a client drives."""
    return SCRIPT if view.kind == "script" else None


def wanted_runs(
    views: Iterator[RunView],
    type_name: str | None,
    tags: labels.Labels | str | None,
    properties: labels.Labels | str | None,
) -> Iterator[RunView]:
    """Those of a list that meet all filters."""
    tagged, having = labels.filters(tags), labels.filters(properties)
    for view in views:
        right_type = type_name is None or run_type(view) == type_name
        if right_type and labels.fits(view.tags, tagged) and labels.fits(view.properties, having):
            yield view


class Children(RunBase):
    """Children of a run; each is begun at once and ended by whoever made it."""

    @property
    def parent(self) -> "Run | None":
        """The run this one was made from."""
        parent = self._view.parent_run_id
        if parent is None:
            return None
        return self._other(self._client.get(f"/runs/{parent}", RunView))

    def child_run(
        self, name: str | None = None, run_id: str | None = None, outputs: str | None = None
    ) -> "Run":
        """A new run below this one, Running; ``name`` is shown to people.

        ``outputs``: a folder whose files become the child's when it completes.
        """
        if run_id is not None:
            raise UserError("run_id: the platform chooses ids; leave it out", field="run_id")
        with naming_the_field():
            spec = RunSpec(kind="interactive", display_name=name)
        child = self._begin(spec)
        child.track(outputs)
        return child

    def create_children(
        self,
        count: int | None = None,
        tag_key: str | None = None,
        tag_values: list[Any] | None = None,
    ) -> "list[Run]":
        """At most 100 new runs below this one: ``count``, or one for each of ``tag_values``."""
        values = list(tag_values or ())
        if (count is None) == (tag_key is None) or (tag_key is None) != (not values):
            raise UserError("count: give either count, or tag_key and tag_values", field="count")
        number = len(values) if count is None else count
        if not 1 <= number <= MOST_CHILDREN:
            raise UserError(
                f"count: got {number}; 1 to {MOST_CHILDREN} children are made at a time",
                field="count",
            )

        def begin(index: int) -> "Run":
            tags: dict[str, Any] = {NUMBER_TAG: index}
            if tag_key is not None:
                tags[tag_key] = values[index]
            return self._begin(RunSpec(kind="interactive", tags=labels.texts(tags)))

        with ThreadPoolExecutor(PARALLEL, thread_name_prefix="children") as pool:
            return list(pool.map(begin, range(number)))

    def submit_child(
        self, config: "ScriptRunConfig", tags: dict[str, str | None] | None = None, **kwargs: Any
    ) -> "Run":
        """Submit a script as a run below this one."""
        return self.experiment.submit(config, tags, parent_run_id=self.id, **kwargs)

    def get_children(
        self,
        recursive: bool = False,
        tags: dict[str, str | None] | str | None = None,
        properties: dict[str, str | None] | str | None = None,
        type: str | None = None,  # noqa: A002 - v1's name
        status: str | None = None,
        _rehydrate_runs: bool = True,
    ) -> "Iterator[Run]":
        """Runs below this one, newest first; ``recursive`` those below them too."""
        params = {
            "ancestor_run_id" if recursive else "parent_run_id": self.id,
            "tag": labels.first(labels.filters(tags)),
            "property": labels.first(labels.filters(properties)),
            "status": status,
        }
        views = self._client.pages("/runs", RunView, params)
        for view in wanted_runs(views, type, tags, properties):
            yield self._other(view)

    def _begin(self, spec: RunSpec) -> "Run":
        return self._other(begin(self._client, self.experiment.name, spec, self.id))


def begin(
    client: Client, experiment: str, spec: RunSpec, parent_run_id: str | None = None
) -> RunView:
    """A new interactive run, Running."""
    with naming_the_field():
        request = RunRequest(experiment=experiment, spec=spec, parent_run_id=parent_run_id)
    return client.call("POST", "/runs", RunView, body=request, key=new_id())
