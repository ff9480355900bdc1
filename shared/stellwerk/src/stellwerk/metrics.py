"""Logged values in the shapes of the v1 SDK's ``Run.get_metrics()``. Pure.

One value logged once is a scalar, logged n times a list; a list, row or table of one element
collapses to scalars as well; repeated rows and tables become columns.
"""

from collections.abc import Iterable
from typing import Any

from stellwerk.api import MetricPoint

_NOT_IN_JSON = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def shaped(points: Iterable[MetricPoint], run_id: str) -> dict[str, Any]:
    """Name → value, points in the order they were logged."""
    by_name: dict[str, list[MetricPoint]] = {}
    for point in points:
        by_name.setdefault(point.name, []).append(point)
    return {name: _shape(found, run_id) for name, found in by_name.items()}


def _shape(points: list[MetricPoint], run_id: str) -> Any:
    if any(point.kind in {"row", "table"} for point in points):
        columns: dict[str, list[Any]] = {}
        for point in points:
            for column, cells in _columns(point):
                columns.setdefault(column, []).extend(cells)
        return {column: _collapsed(cells) for column, cells in columns.items()}
    values: list[Any] = []
    for point in points:
        if point.kind == "list" and isinstance(point.value, list):
            values.extend(_number(each) for each in point.value)
        elif point.kind == "image":
            values.append(_artifact(str(point.value), run_id))
        else:
            values.append(_number(point.value))
    return _collapsed(values)


def _columns(point: MetricPoint) -> list[tuple[str, list[Any]]]:
    if not isinstance(point.value, dict):
        return [(point.name, [_number(point.value)])]
    return [
        (column, [_number(each) for each in (cells if isinstance(cells, list) else [cells])])
        for column, cells in point.value.items()
    ]


def _collapsed(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _number(value: Any) -> Any:
    return _NOT_IN_JSON.get(value, value) if isinstance(value, str) else value


def _artifact(name: str, run_id: str) -> str:
    return name if "://" in name else f"aml://artifactId/ExperimentRun/dcid.{run_id}/{name}"
