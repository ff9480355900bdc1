"""Answers of the REST API that are only lists; the bodies themselves are in ``stellwerk.api``."""

from datetime import datetime
from typing import Any

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


class Series(View):
    """Values of one metric of one run, as they were logged; ``kind`` as in MetricPoint."""

    run_id: str
    name: str
    kind: str
    values: list[Any]


class SeriesPage(View):
    """``GET /runs/{id}/series``; pass ``next`` as ``cursor`` for more.

    ``runs`` are those looked at, also the ones that logged nothing. A series goes on where a later
    one has the same run and name.
    """

    runs: tuple[str, ...] = ()
    series: tuple[Series, ...] = ()
    next: str | None = None


class ExperimentView(View):
    """One item of ``GET /experiments``."""

    name: str
    runs: int
    last_run_at: datetime | None = None


class Anything(View):
    """An answer whose content does not matter."""
