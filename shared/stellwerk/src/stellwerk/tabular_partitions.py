"""Columns that come from a file's path: ``/{Department}/{Day:yyyy/MM/dd}/data.csv``. Pure.

The format describes the end of the path. Leading parts without a column may be missing from the
path, because a dataset's paths begin where its files begin to differ.
"""

import re
from datetime import datetime

from stellwerk.errors import UserError

_COLUMN = re.compile(r"\{(\w[^{}:]*)(?::([^{}]*))?\}|\*")
_TIME_PARTS = {
    "yyyy": (r"\d{4}", "%Y"),
    "MM": (r"\d{2}", "%m"),
    "dd": (r"\d{2}", "%d"),
    "HH": (r"\d{2}", "%H"),
    "mm": (r"\d{2}", "%M"),
    "ss": (r"\d{2}", "%S"),
}
_TIME = re.compile("|".join(_TIME_PARTS))

Value = str | datetime


def partition_columns(partition_format: str, path: str) -> dict[str, Value]:
    """Column → value of a file at ``path``. Raises UserError where the path does not fit."""
    rest = "/" + partition_format.lstrip("/")
    while True:
        pattern, times = _compiled(rest)
        found = pattern.search("/" + path.lstrip("/"))
        if found:
            break
        first, slash, after = rest[1:].partition("/")
        if not slash or "{" in first:
            raise UserError(
                f"partition_format: {partition_format!r} does not fit the end of path {path!r}",
                code="dataset.partition_format",
                field="partition_format",
            )
        rest = "/" + after
    values: dict[str, Value] = {}
    for index, (name, form) in enumerate(times):
        text = found.group(index + 1)
        values[name] = text if form is None else datetime.strptime(text, form)  # noqa: DTZ007
    return values


def _compiled(text: str) -> tuple[re.Pattern[str], list[tuple[str, str | None]]]:
    pattern, end = "", 0
    columns: list[tuple[str, str | None]] = []
    for match in _COLUMN.finditer(text):
        pattern += re.escape(text[end : match.start()])
        end = match.end()
        if match.group() == "*":
            pattern += "[^/]*"
        elif match.group(2) is None:
            pattern += "([^/]+)"
            columns.append((match.group(1), None))
        else:
            shape, form = _time(match.group(2))
            pattern += f"({shape})"
            columns.append((match.group(1), form))
    return re.compile(pattern + re.escape(text[end:]) + "$"), columns


def _time(text: str) -> tuple[str, str]:
    """A time's format as a regular expression and as strptime reads it."""
    shape, form, end = "", "", 0
    for match in _TIME.finditer(text):
        between = text[end : match.start()]
        end = match.end()
        part, directive = _TIME_PARTS[match.group()]
        shape += re.escape(between) + part
        form += between.replace("%", "%%") + directive
    return shape + re.escape(text[end:]), form + text[end:].replace("%", "%%")
