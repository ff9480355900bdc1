"""Options and arguments that several commands share. Imports nothing but Click."""

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

output_option: Decorator = click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="Form of the result on stdout.",
)


def pairs(texts: tuple[str, ...], option: str) -> dict[str, str | None]:
    """``k=v`` texts as a dictionary; ``k`` alone has the value None."""
    found: dict[str, str | None] = {}
    for text in texts:
        name, equal, value = text.partition("=")
        if not name:
            raise click.BadParameter(f"got {text!r}; write name=value", param_hint=option)
        found[name] = value if equal else None
    return found


def seconds(text: str, option: str) -> float:
    """``30d``, ``12h``, ``90m`` or ``45s``."""
    units = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
    return _measured(text, units, option, "30d, 12h, 90m or 45s")


def size(text: str, option: str) -> int:
    """``20GB``, ``500MB``, ``1TB`` or bytes; decimal."""
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    return int(_measured(text.upper(), units, option, "20GB or 500MB"))


def _measured(text: str, units: dict[str, int], option: str, example: str) -> float:
    number = text.rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text[len(number) :].strip()
    if not number.replace(".", "", 1).isdigit() or unit not in units:
        raise click.BadParameter(f"got {text!r}; write {example}", param_hint=option)
    return float(number) * units[unit]


def name_and_version(text: str) -> tuple[str, int | None]:
    """``name`` or ``name:3``."""
    name, colon, version = text.rpartition(":")
    if not colon:
        return text, None
    if not name or not version.isdigit() or int(version) < 1:
        raise click.BadParameter(f"got {text!r}; write NAME or NAME:VERSION, for example digits:3")
    return name, int(version)


def pyproject_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--pyproject`` and what belongs to it."""
    for option in (
        click.option("--group", multiple=True, help="A dependency group of it. Repeatable."),
        click.option("--extra", multiple=True, help="An extra of it. Repeatable."),
        click.option("--lock", type=click.Path(), help="The uv.lock of that project."),
        click.option("--pyproject", type=click.Path(), help="A pyproject.toml."),
    ):
        command = option(command)
    return command
