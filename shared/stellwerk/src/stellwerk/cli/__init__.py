"""The command line. Nothing but Click is imported before a command runs."""

import sys
from collections.abc import Sequence

import click

from stellwerk.cli.lazy import LazyGroup

EPILOG = """\b
Exit codes:
  0    ok
  1    error
  2    usage: a wrong option or argument
  3    authentication: the token is missing or wrong
  4    no platform found, or it cannot be reached
  5    conflict: exists already, or its state forbids it
  6    not found
  100  the run failed        (where the command waited for it)
  103  the run was canceled  (where the command waited for it)
  104  the rerun came to something else  (run rerun --verify)
  130  interrupted with Ctrl-C; a run goes on
"""

_COMMANDS = {
    "up": ("stellwerk_embedded.cli:up", "Start the platform on this machine."),
    "down": ("stellwerk_embedded.cli:down", "Stop the platform on this machine."),
    "status": ("stellwerk_embedded.cli:status", "Show how the platform on this machine is doing."),
    "doctor": ("stellwerk_embedded.cli:doctor", "Check this machine, with a fix for each problem."),
    "run": ("stellwerk.cli.run:run", "Submit, watch, list, cancel runs; their files and metrics."),
    "dataset": ("stellwerk.cli.dataset:dataset", "Register, list, show, download datasets."),
    "environment": ("stellwerk.cli.environment:environment", "Register and build environments."),
    "compute": ("stellwerk.cli.compute:compute", "Create, list, change, delete clusters."),
    "model": ("stellwerk.cli.model:model", "Register, list, download, delete models."),
    "secret": ("stellwerk.cli.secret:secret", "Set, list, delete secrets of the workspace."),
    "azureml": ("stellwerk.cli.azureml:azureml", "Check code written for the Azure ML SDK v1."),
    "version": (
        "stellwerk.cli.version:version",
        "Show the version of this client and the platform.",
    ),
}


@click.group(
    cls=LazyGroup,
    commands_table=_COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def cli() -> None:
    """Train Keras models on your own machines.

    Start with `stellwerk up`, then `stellwerk run submit SCRIPT`. The platform is found by
    STELLWERK_URL and STELLWERK_TOKEN, .stellwerk/config.json in this folder or its parents, or the
    one that `stellwerk up` started.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that cannot show a character
    try:
        result = cli.main(arguments, prog_name="stellwerk", standalone_mode=False)
    except BaseException as error:  # noqa: BLE001 - the one place that turns errors into exit codes
        from stellwerk.cli.failures import exit_code

        return exit_code(error)
    return result if isinstance(result, int) else 0
