"""``stellwerk run rerun``."""

from typing import TYPE_CHECKING

import click

from stellwerk.cli.options import output_option

if TYPE_CHECKING:
    from stellwerk.rerun_compare import Comparison


@click.command()
@click.argument("run_id", metavar="RUN")
@click.option("--verify", is_flag=True, help="Compare what both runs came to.")
@click.option("--compute", help="Another cluster than that of RUN.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the run.")
@output_option
def rerun(run_id: str, verify: bool, compute: str | None, detach: bool, output: str) -> int:
    """Run RUN again on exactly what it had, and show the log until it has ended.

    The same source, arguments, versions of data, and packages by their recorded lock (in containers
    the recorded image). --verify compares files by digest, logs left out, and metrics by value,
    and prints what differs. The exit code is 0, 100 if the run failed, 103 if it was canceled, 104
    if it came to something else.
    """
    from stellwerk.cli.failures import OK, RERUN_DIFFERS
    from stellwerk.cli.output import print_one
    from stellwerk.cli.run import connect
    from stellwerk.cli.run_follow import show_until_end, tell_detached
    from stellwerk.errors import ConflictError

    if verify and detach:
        raise click.UsageError("--verify waits for the run; leave out --detach")
    before = connect(run_id)
    if verify and before.status != "Completed":
        raise ConflictError(
            f"RUN: {before.id[:12]} is {before.status}; only a completed run can be verified",
            code="run.not_completed",
            field="RUN",
        )
    again = before.rerun(compute)
    if detach:
        return tell_detached(again, output)
    if not verify:
        return show_until_end(again, output)
    code = show_until_end(again, None if output == "json" else output)
    if code != OK:
        if output == "json":
            print_one(again.view, output)
        return code
    found = before.compare(again)
    _print(found, output)
    return OK if found.match else RERUN_DIFFERS


def _print(found: "Comparison", output: str) -> None:
    from dataclasses import asdict

    from stellwerk.cli.output import print_json
    from stellwerk.text import harmless

    if output == "json":
        print_json({"match": found.match, **asdict(found)})
        return
    for line in str(found).splitlines():
        click.echo(harmless(line))
