"""Answers of the REST API that are only lists; the bodies themselves are in ``stellwerk.api``."""

from datetime import datetime

from stellwerk.api import LogView, MetricPoint, RunFileView, View


class LogList(View):
    """``GET /runs/{id}/logs``."""

    logs: tuple[LogView, ...] = ()


class FileList(View):
    """``GET /runs/{id}/files`` and ``GET /models/{name}/versions/{v}/files``."""

    files: tuple[RunFileView, ...] = ()


class MetricList(View):
    """``GET /runs/{id}/metrics``; pass ``next`` as ``after`` for more."""

    points: tuple[MetricPoint, ...] = ()
    next: int | None = None


class ExperimentView(View):
    """One item of ``GET /experiments``."""

    name: str
    runs: int
    last_run_at: datetime | None = None


class Anything(View):
    """An answer whose content does not matter."""
