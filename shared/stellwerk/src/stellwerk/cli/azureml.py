"""``stellwerk azureml``."""

from typing import TYPE_CHECKING

import click

from stellwerk.cli.options import output_option

if TYPE_CHECKING:
    from stellwerk.migration.report import Report, Row

PLACES_SHOWN = 6


@click.group()
def azureml() -> None:
    """Code written for the Azure ML SDK v1."""


@azureml.command("check")
@click.argument("folder", type=click.Path(exists=True))
@click.option("--all", "show_all", is_flag=True, help="Supported symbols too.")
@output_option
def check(folder: str, show_all: bool, output: str) -> int:
    """Say what becomes of the scripts, notebooks and environment files below FOLDER.

    Nothing is run and no platform is asked. Each symbol of the v1 SDK is supported, substituted
    (something else happens, and the note says what) or not supported (the note says what to do).
    The exit code is 1 where something is not supported.
    """
    from pathlib import Path

    from stellwerk.cli.output import print_json
    from stellwerk.migration.report import check as read

    report = read(Path(folder))
    if output == "json":
        print_json(report.as_dict())
    else:
        _print(report, show_all=show_all)
    return 1 if report.counts["not supported"] else 0


def _print(report: "Report", *, show_all: bool) -> None:
    for file in report.files:
        if not file.rows:
            continue
        supported = sum(row.status == "supported" for row in file.rows)
        click.secho(_harmless(file.path), bold=True, nl=False)
        click.echo(f"  {supported} supported")
        for row in file.rows:
            if show_all or row.status != "supported":
                _print_row(row)
    counts = report.counts
    words = ", ".join(f"{count} {status}" for status, count in reversed(counts.items()))
    click.echo(f"{len(report.files)} files; different symbols: {words}")


def _print_row(row: "Row") -> None:
    color = {"not supported": "red", "substituted": "yellow"}.get(row.status)
    places = ", ".join(row.where[:PLACES_SHOWN]) + (" …" if len(row.where) > PLACES_SHOWN else "")
    where = f"  ({places})" if places else ""
    click.echo(f"  {click.style(f'{row.status:<13}', fg=color)}  {_harmless(row.symbol)}{where}")
    if row.note:
        click.echo(f"{'':17}{_harmless(row.note)}")


def _harmless(text: str) -> str:
    from stellwerk.text import harmless

    return harmless(text).replace("\n", " ")
