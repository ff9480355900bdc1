"""Logged values in the shapes of the v1 SDK's ``Run.get_metrics()``. Pure.

One value logged once is a scalar, logged n times a list; a list, row or table of one element
collapses to scalars as well; repeated rows and tables become columns.
"""

from collections.abc import Iterable
from typing import Any

from stellwerk.answers import Series

_NOT_IN_JSON = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}


def shaped(series: Iterable[Series], run_id: str) -> dict[str, Any]:
    """Name → value of one run's series."""
    by_name: dict[str, list[Series]] = {}
    for each in series:
        by_name.setdefault(each.name, []).append(each)
    return {name: _shape(found, run_id) for name, found in by_name.items()}


def _shape(series: list[Series], run_id: str) -> Any:
    if any(each.kind in {"row", "table"} for each in series):
        columns: dict[str, list[Any]] = {}
        for each in series:
            for value in each.values:
                for column, cells in _columns(each.name, value):
                    columns.setdefault(column, []).extend(cells)
        return {column: _collapsed(cells) for column, cells in columns.items()}
    values: list[Any] = []
    for each in series:
        if each.kind == "scalar":
            values += _numbers(each.values)
        elif each.kind == "list":
            for part in each.values:
                values += _numbers(part if isinstance(part, list) else [part])
        else:
            values += [_artifact(str(value), run_id) for value in each.values]
    return _collapsed(values)


def _columns(name: str, value: Any) -> list[tuple[str, list[Any]]]:
    if not isinstance(value, dict):
        return [(name, _numbers([value]))]
    return [
        (column, _numbers(cells if isinstance(cells, list) else [cells]))
        for column, cells in value.items()
    ]


def _collapsed(values: list[Any]) -> Any:
    return values[0] if len(values) == 1 else values


def _numbers(values: list[Any]) -> list[Any]:
    """Values with the numbers that JSON lacks."""
    return [_NOT_IN_JSON.get(v, v) if isinstance(v, str) else v for v in values]


def _artifact(name: str, run_id: str) -> str:
    return name if "://" in name else f"aml://artifactId/ExperimentRun/dcid.{run_id}/{name}"
