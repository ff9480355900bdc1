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
