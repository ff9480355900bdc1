"""What commands print: tables for people or JSON for programs, never both on stdout."""

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import click
from pydantic import BaseModel

from stellwerk.text import harmless

M = TypeVar("M", bound=BaseModel)
LONGEST_CELL = 300
Columns = dict[str, Callable[[M], object]]


def print_list(items: Iterable[M], columns: "Columns[M]", output: str) -> None:
    """A list of things: a table with these columns, or a JSON array."""
    listed = list(items)
    if output == "json":
        print_json([each.model_dump(mode="json") for each in listed])
        return
    rows = [[cell(read(each)) for read in columns.values()] for each in listed]
    print_table([name.upper() for name in columns], rows)


def print_one(item: BaseModel, output: str) -> None:
    """One thing: its fields line by line, or a JSON object."""
    content = item.model_dump(mode="json")
    if output == "json":
        print_json(content)
        return
    rows = dict(_lines("", content))
    width = max(map(len, rows))
    for name, text in rows.items():
        click.echo(f"{harmless(name):<{width}}  {text}")


def _lines(name: str, value: object) -> Iterator[tuple[str, str]]:
    """A nested value as lines with dotted names; what is empty is left out."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lines(f"{name}.{key}" if name else str(key), inner)
    elif isinstance(value, list) and any(isinstance(each, dict | list) for each in value):
        for index, inner in enumerate(value):
            yield from _lines(f"{name}[{index}]", inner)
    elif isinstance(value, list) and value:
        yield name, " ".join(map(cell, value))
    elif value not in (None, [], ""):
        text = cell(value)
        yield name, text if len(text) <= LONGEST_CELL else f"{text[:LONGEST_CELL]} …"


def print_json(content: Any) -> None:
    """JSON, indented for a terminal, one line otherwise."""
    click.echo(json.dumps(content, indent=2 if sys.stdout.isatty() else None))


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Aligned columns; nothing but the heads where there are no rows."""
    widths = [max(len(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    for row in (heads, *rows):
        line = "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True))
        click.echo(line.rstrip())


def cell(value: object) -> str:
    """One value on one line, without control characters."""
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    if isinstance(value, dict | list | tuple):
        value = json.dumps(value, ensure_ascii=False)
    return harmless(str(value)).replace("\n", " ").replace("\r", " ")
