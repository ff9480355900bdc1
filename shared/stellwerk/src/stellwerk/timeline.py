"""Where the time of a run's start went: its status stream and its node's own clock as steps."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from stellwerk.api import RunEventView, RunView

_ENDS = {
    "environment": ("RunPreparing", "ImageReady"),
    "data": ("RunPreparing", "DatasetReady"),
    "queue": ("RunQueued", "RunAssigned"),
    "start": ("RunAssigned", "RunStarted"),
    "run": ("RunStarted", "RunFinalizing"),
    "post-processing": ("RunFinalizing", "RunCompleted"),
}
_ON_NODE = {
    "prepare": "preparation on the node",
    "code": "  code",
    "data": "  inputs",
    "launch": "process",
    "imports": "imports",
    "first_step": "first training step",
}
"""The last two come after the process's start: they are the first parts of ``run``."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: when it began in seconds after the submission, and how long it took."""

    name: str
    begins_s: float | None
    seconds: float
    detail: str = ""


def timeline(view: RunView, events: Iterable[RunEventView]) -> list[Step]:
    """The steps of a run's last attempt, in order; those that have not ended are left out.

    Steps between events are by the scheduler's clock; those on the node, by its monotonic clock,
    are parts of ``start`` and the first ones of ``run``.
    """
    times: dict[str, datetime] = {}
    for event in events:
        name = "RunCompleted" if event.type in {"RunFailed", "RunCanceled"} else event.type
        times[name] = event.time
    steps = []
    for name, (first, last) in _ENDS.items():
        begin, end = times.get(first), times.get(last)
        if begin is None or end is None or end < begin:
            continue
        after = (begin - view.submitted_at).total_seconds()
        steps.append(Step(name, after, (end - begin).total_seconds()))
        if name == "start":
            steps += _on_node(view)
    return steps


def _on_node(view: RunView) -> list[Step]:
    start = view.start
    if start is None:
        return []
    how = "warm" if start.warm else f"cold: {start.cold_reason}" if start.cold_reason else "cold"
    loaded = "loaded before the run" if start.timings_s.get("imports") == 0 else ""
    details = {"launch": how, "imports": loaded}
    return [
        Step(f"  {words}", None, start.timings_s[key], details.get(key, ""))
        for key, words in _ON_NODE.items()
        if key in start.timings_s
    ]
