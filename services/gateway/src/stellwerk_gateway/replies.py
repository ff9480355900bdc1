"""Answers of other services that ``stellwerk.api`` has no model for, and REST hands on as such."""

from datetime import datetime

from stellwerk.api import LogView, MetricPoint, QueueView, RunEventView, RunFileView, View


class QueueReply(View):
    """Scheduler's ``queue-get``: None for a run that does not wait."""

    queue: QueueView | None = None


class EventsReply(View):
    """History's ``run-events``; ``terminal`` when no more can come."""

    events: tuple[RunEventView, ...] = ()
    terminal: bool = False


class LogList(View):
    """The logs of a run."""

    logs: tuple[LogView, ...] = ()


class FileList(View):
    """Files of a run or of a model version."""

    files: tuple[RunFileView, ...] = ()


class MetricList(View):
    """Logged values; pass ``next`` as ``after`` for more."""

    points: tuple[MetricPoint, ...] = ()
    next: int | None = None


class ExperimentView(View):
    """An experiment: a name that runs share."""

    name: str
    runs: int
    last_run_at: datetime | None = None


class UnregisteredView(View):
    """How many versions of a dataset lost their name."""

    versions: int
