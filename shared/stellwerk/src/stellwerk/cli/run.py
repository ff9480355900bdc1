"""``stellwerk run``: runs and what belongs to them."""

import sys
from typing import TYPE_CHECKING

import click

from stellwerk.cli.options import output_option
from stellwerk.cli.run_rerun import rerun
from stellwerk.cli.run_submit import submit

if TYPE_CHECKING:
    from stellwerk.run import Run
    from stellwerk.workspace import Workspace

SCANNED_RUNS = 1000
ID_LENGTH = 32


@click.group()
def run() -> None:
    """Submit, watch, list and cancel runs. RUN is a run's id, or its first letters."""


run.add_command(submit)
run.add_command(rerun)


@run.command("list")
@click.option("--experiment", help="Only runs of this experiment.")
@click.option("--status", help="Only runs with this status, for example Running.")
@click.option("--tag", multiple=True, help="Only runs with this tag: k or k=v. Repeatable.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True)
@output_option
def list_runs(
    experiment: str | None, status: str | None, tag: tuple[str, ...], limit: int, output: str
) -> None:
    """List runs, newest first."""
    from itertools import islice

    from stellwerk import labels
    from stellwerk.api import RunView
    from stellwerk.cli.output import print_list
    from stellwerk.runstate import RunStatus
    from stellwerk.workspace import Workspace

    params = {
        "experiment": experiment,
        "status": next((each for each in RunStatus if each.lower() == str(status).lower()), status),
        "tag": labels.first(tag),
        "limit": min(limit, 1000),
    }
    views = Workspace.from_config().client.pages("/runs", RunView, params)
    print_list(
        islice((view for view in views if labels.fits(view.tags, tag)), limit),
        {
            "run": lambda view: view.run_id[:12],
            "experiment": lambda view: view.experiment,
            "number": lambda view: view.number,
            "name": lambda view: view.display_name,
            "status": lambda view: view.status,
            "target": lambda view: view.target,
            "submitted": lambda view: view.submitted_at,
            "why": lambda view: _why(view.queue, view.error),
        },
        output,
    )


@run.command("show")
@click.argument("run_id", metavar="RUN")
@output_option
def show(run_id: str, output: str) -> None:
    """Show one run: status, phases, what it waits for, why it failed."""
    from stellwerk.cli.output import print_one

    print_one(connect(run_id).view, output)


@run.command("timeline")
@click.argument("run_id", metavar="RUN")
@output_option
def show_timeline(run_id: str, output: str) -> None:
    """Show where the time of a run went, from its submission on."""
    from dataclasses import asdict

    from stellwerk.cli.output import print_json, print_table
    from stellwerk.timeline import timeline

    found = connect(run_id)
    known = []
    for event in found.events():
        known.append(event)
        if event.sequence >= found.view.sequence:
            break
    steps = timeline(found.view, known)
    if output == "json":
        print_json([asdict(step) for step in steps])
        return
    rows = [
        [
            step.name,
            "" if step.begins_s is None else f"{step.begins_s:.3f}",
            f"{step.seconds:.3f}",
            step.detail,
        ]
        for step in steps
    ]
    print_table(["STEP", "AFTER S", "TOOK S", ""], rows)


@run.command("logs")
@click.argument("run_id", metavar="RUN")
@click.option("-f", "--follow", "follow_it", is_flag=True, help="Go on until the run has ended.")
@click.option("--path", help="Another log of the run, for example logs/train.log.")
@click.option("--raw", is_flag=True, help="Leave control characters as they are.")
def logs(run_id: str, follow_it: bool, path: str | None, raw: bool) -> None:
    """Print a run's log."""
    from stellwerk.log_names import STD_LOG
    from stellwerk.text import LogText

    found = connect(run_id)
    chunks = found.logs(follow_it, path or STD_LOG)
    if raw or not sys.stdout.isatty():
        for chunk in chunks:
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
        return
    text = LogText(neutralise=True)
    for chunk in chunks:
        click.echo(text.feed(chunk), nl=False)
    click.echo(text.feed(b"", final=True), nl=False)


@run.command("sbom")
@click.argument("run_id", metavar="RUN")
def sbom(run_id: str) -> None:
    """Print the bill of materials of what a run ran in: CycloneDX 1.6, JSON."""
    import json

    click.echo(json.dumps(connect(run_id).sbom(), indent=1))


@run.command("cancel")
@click.argument("run_id", metavar="RUN")
@output_option
def cancel(run_id: str, output: str) -> None:
    """Ask for a run's end. A run that has ended stays as it is."""
    from stellwerk.cli.output import print_one

    found = connect(run_id)
    found.cancel()
    if output == "json":
        print_one(found.view, output)
    else:
        click.echo(f"Run {found.id}: {found.view.status}")


@run.command("files")
@click.argument("run_id", metavar="RUN")
@output_option
def files(run_id: str, output: str) -> None:
    """List a run's files."""
    from stellwerk.cli.output import print_list

    print_list(
        connect(run_id).files(),
        {
            "path": lambda file: file.path,
            "bytes": lambda file: file.size,
            "sha256": lambda file: (file.sha256 or "")[:12] or None,
        },
        output,
    )


@run.command("download")
@click.argument("run_id", metavar="RUN")
@click.argument("path", required=False)
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False),
    default=".",
    show_default=True,
    help="Folder to write to.",
)
@output_option
def download(run_id: str, path: str | None, folder: str, output: str) -> None:
    """Download a file or folder of a run; without PATH everything."""
    from stellwerk.cli.output import print_json

    found = connect(run_id)
    written = found.download_files(path, folder, show_progress=True)
    if output == "json":
        print_json(written)
    else:
        click.echo("\n".join(written))


@run.command("metrics")
@click.argument("run_id", metavar="RUN")
@click.option("--name", help="Only this metric.")
@output_option
def metrics(run_id: str, name: str | None, output: str) -> None:
    """Show a run's metrics: logged once a value, logged n times a list."""
    from stellwerk.cli.output import cell, print_json, print_table

    found = connect(run_id).get_metrics(name)
    if output == "json":
        print_json(found)
    else:
        print_table(["METRIC", "VALUE"], [[cell(key), cell(value)] for key, value in found.items()])


def connect(run_id: str) -> "Run":
    """The run whose id begins so, of the platform found here."""
    from stellwerk.workspace import Workspace

    return find_run(Workspace.from_config(), run_id)


def find_run(workspace: "Workspace", prefix: str) -> "Run":
    """The run whose id begins with ``prefix``. Raises NotFoundError, ConflictError for several."""
    from itertools import islice

    from stellwerk.api import RunView
    from stellwerk.errors import ConflictError, NotFoundError, UserError
    from stellwerk.run import Run

    prefix = prefix.lower()
    if not prefix:
        raise UserError("RUN: give a run's id, or its first letters", field="RUN")
    if len(prefix) >= ID_LENGTH:
        return Run.get(workspace, prefix)
    pages = workspace.client.pages("/runs", RunView, {"search": prefix, "limit": 100})
    views = islice(pages, SCANNED_RUNS)
    found = [view for view in views if view.run_id.startswith(prefix)]
    found = [view for view in found if view.run_id == prefix] or found
    if len(found) == 1:
        return Run.get(workspace, found[0].run_id)
    if found:
        some = ", ".join(view.run_id[:12] for view in found[:5])
        raise ConflictError(
            f"RUN: several runs begin with {prefix!r}: {some}. Give more letters.",
            code="run.ambiguous",
            field="RUN",
        )
    try:
        return Run.get(workspace, prefix)
    except NotFoundError as error:  # it says why, where a submission was refused
        raise NotFoundError(
            f"RUN: {error.message} `stellwerk run list` shows what there is.",
            code=error.code,
            field="RUN",
        ) from error


def _why(queue: object, error: object) -> str | None:
    return getattr(queue, "reason", None) or getattr(error, "code", None)
