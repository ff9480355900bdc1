"""Groups whose commands are imported when they are called, so that ``--help`` is quick."""

from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import click


class LazyGroup(click.Group):
    """``commands_table``: name → (``module:attribute``, one line of help)."""

    def __init__(self, *, commands_table: Mapping[str, tuple[str, str]], **options: Any) -> None:
        super().__init__(**options)
        self._table = commands_table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the table."""
        del ctx
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command. Raises ClickException where its package is not installed."""
        del ctx
        if cmd_name not in self._table:
            return None
        module, _, attribute = self._table[cmd_name][0].partition(":")
        try:
            command = getattr(import_module(module), attribute)
        except ModuleNotFoundError as error:
            if not module.startswith(f"{(error.name or '').partition('.')[0]}."):
                raise
            raise click.ClickException(
                f"`stellwerk {cmd_name}` needs the platform's services, which this Python lacks: "
                "`make setup` in a checkout of Stellwerk makes one that has them, in .venv"
            ) from error
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}:{attribute} is no command")
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As Click does; for a command of one of the groups, says which."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            places = [f"stellwerk {name} {args[0]}" for name in self._groups_with(ctx, args[0])]
            if not places:
                raise
            text = f"No such command {args[0]!r}. Did you mean {' or '.join(places)}?"
            raise click.UsageError(text, ctx) from error

    def _groups_with(self, ctx: click.Context, name: str) -> Iterator[str]:
        for each, (place, _) in self._table.items():
            if place.startswith("stellwerk.cli."):
                group = self.get_command(ctx, each)
                if isinstance(group, click.Group) and name in group.commands:
                    yield each

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in self._table.items()])
