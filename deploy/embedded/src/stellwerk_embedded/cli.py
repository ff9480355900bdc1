"""``stellwerk up | down | status | doctor``."""

import contextlib
import json
import signal
import sys
from pathlib import Path
from typing import Any

import click

from stellwerk.cli.options import output_option
from stellwerk.cli.output import print_json, print_table
from stellwerk_embedded import lifecycle
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.ports import BASE, HIGHEST_BASE, LOWEST_BASE

data_option = click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    default=None,
    help="Data folder. Default: $STELLWERK_HOME, or ~/.stellwerk.",
)


def _port(_: click.Context, __: click.Parameter, value: int | None) -> int | None:
    if value is None or value == 0 or LOWEST_BASE <= value <= HIGHEST_BASE:
        return value
    raise click.BadParameter(f"got {value}; allowed are 0 and {LOWEST_BASE} to {HIGHEST_BASE}")


@click.command()
@data_option
@click.option(
    "--port",
    type=int,
    callback=_port,
    metavar="BASE",
    help=f"First of the ports, the gateway's; 0 takes free ones. Default: those of the last "
    f"start with this folder, at first {BASE}.",
)
@click.option("--foreground", is_flag=True, help="Stay, and end with Ctrl-C or SIGTERM.")
def up(data: Path | None, port: int | None, foreground: bool) -> None:
    """Start the platform on this machine and return when it is ready."""
    layout = Layout.of(data)
    if sys.stderr.isatty():
        click.echo(f"Starting Stellwerk in {layout.home} …", err=True)
    if foreground:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = lifecycle.start(layout, port, _progress, foreground=foreground)
    click.echo(f"Ready in {started.seconds:.1f} s.")
    _say_where(layout)
    if not foreground:
        return
    try:
        status = started.process.wait()
    except KeyboardInterrupt:
        click.echo("Stopping …", err=True)
        started.process.terminate()
        status = started.process.wait()
    sys.exit(status)


def _progress(name: str, seconds: float) -> None:
    """For people who watch; a pipe gets the result only."""
    if sys.stderr.isatty():
        click.echo(f"  {seconds:5.1f} s  {name}", err=True)


def _say_where(layout: Layout) -> None:
    client: dict[str, Any] = json.loads(layout.client_file.read_text())
    for name, text in (
        ("gateway", f"{client['url']}   (API description: {client['url']}/docs)"),
        ("bus", f"{client['nats_url']}   (user {client['nats_user']})"),
        ("credentials", str(layout.client_file)),
        ("data", str(layout.home)),
        ("logs", str(layout.logs)),
    ):
        click.echo(f"  {name:<12} {text}")
    click.echo("Next: stellwerk run submit SCRIPT.py · stellwerk status · stellwerk down")


@click.command()
@data_option
def down(data: Path | None) -> None:
    """Stop the platform and wait for it; data stay, and so do runs that are under way."""
    from stellwerk_embedded import under_way  # noqa: PLC0415 - `up` needs none of it

    layout = Layout.of(data)
    runs = under_way.runs(layout)
    if lifecycle.stop(layout):
        click.echo("Stopped.")
        if runs:
            shown = ", ".join(each[:12] for each in runs[:5]) + (", …" if len(runs) > 5 else "")
            click.echo(
                f"Under way: {shown}. The next `stellwerk up` takes them over; without one within "
                "two minutes they are ended.",
                err=True,
            )
    else:
        click.echo(f"Nothing runs with {layout.home}.")


@click.command()
@data_option
@output_option
def status(data: Path | None, output: str) -> None:
    """Show the processes of the platform; exit code 0 when all are ready, else 1."""
    from stellwerk_embedded import status as report  # noqa: PLC0415 - `up` needs none of it

    layout = Layout.of(data)
    found = report.look(layout)
    if output == "json":
        print_json(found.content())
    elif not found.running:
        click.echo(f"Nothing runs with {layout.home}. Start it: stellwerk up")
    else:
        print_table(report.HEADS, [row.cells() for row in found.rows])
        for row in found.rows:
            if row.message:
                click.echo(f"{row.name}: {row.message} (log: {layout.log(row.name)})", err=True)
    sys.exit(0 if found.ready else 1)


@click.command()
@data_option
@output_option
def doctor(data: Path | None, output: str) -> None:
    """Check this machine and the platform; exit code 1 when something stands in the way."""
    from stellwerk_embedded import doctor as checks  # noqa: PLC0415 - `up` needs none of it

    findings = checks.examine(Layout.of(data))
    if output == "json":
        print_json([finding.content() for finding in findings])
    else:
        for finding in findings:
            click.echo(f"{finding.mark}  {finding.name:<14} {finding.found}")
            if finding.fix:
                click.echo(f"{'':<20} → {finding.fix}")
    failed = any(finding.state == "problem" for finding in findings)
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.exit(1 if failed else 0)
