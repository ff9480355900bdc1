"""A run that was just started, told to who started it: what it prints, and what came of it."""

import sys
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from stellwerk.api import RunView
    from stellwerk.run import Run


def tell_detached(run: "Run", output: str) -> int:
    """Say what was started, and how to watch it."""
    from stellwerk.cli.output import print_one

    if output == "json":
        print_one(run.view, output)
    else:
        click.echo(run.id)
        click.echo(f"Watch it: stellwerk run logs -f {run.id[:12]}", err=True)
        click.echo(f"Cancel it: stellwerk run cancel {run.id[:12]}", err=True)
    return 0


def show_until_end(run: "Run", output: str | None, *, raw: bool = False) -> int:
    """Show a run's log until it has ended; its exit code. ``output`` None: print no result."""
    from stellwerk.cli.failures import code_of_status
    from stellwerk.cli.output import print_one
    from stellwerk.errors import ServiceUnavailableError
    from stellwerk.phases import PhasePrinter

    try:
        run.wait_for_completion(
            show_output=True,
            raise_on_error=False,
            on_event=PhasePrinter(sys.stderr),
            out=sys.stdout if output == "table" else sys.stderr,
            raw=raw,
        )
    except ServiceUnavailableError:
        click.echo(
            f"The run may go on. Watch it again: stellwerk run logs -f {run.id[:12]}", err=True
        )
        raise
    _tell_outputs(run.view)
    if output == "json":
        print_one(run.view, output)
    return code_of_status(run.view.status)


def _tell_outputs(view: "RunView") -> None:
    """Say which dataset each output has become, where the run has completed."""
    from stellwerk.cli.output import cell
    from stellwerk.sizes import size_text

    if view.status != "Completed" or view.spec is None:
        return
    for name in view.spec.outputs:
        made = view.outputs.get(name)
        if made is None:
            said = f"not known yet; stellwerk run show {view.run_id[:12]} will say it"
        elif made.dataset_id is None:
            said = "no dataset, see the warnings"
        else:
            called = made.dataset_id if made.name is None else f"{made.name}:{made.version}"
            files = "1 file" if made.files == 1 else f"{made.files} files"
            said = f"dataset {cell(called)} ({files}, {size_text(made.bytes)})"
        click.echo(f"output {name}: {said}", err=True)
