"""``stellwerk environment``."""

import sys
from typing import Any

import click

from stellwerk.cli.options import (
    name_and_version,
    output_option,
    pyproject_options,
    seconds,
    size,
)
from stellwerk.cli.run_submit import container_options


@click.group()
def environment() -> None:
    """Register, list, show and build environments."""


@environment.command("register")
@click.argument("name")
@click.option("--conda", type=click.Path(), help="A conda environment file.")
@click.option("--requirements", type=click.Path(), help="A requirements.txt.")
@pyproject_options
@click.option("--package", multiple=True, help="A package. Repeatable.")
@container_options
@output_option
def register(name: str, output: str, **options: Any) -> None:
    """Register an environment; the same definition again is the same version."""
    from stellwerk.cli.output import print_one
    from stellwerk.cli.run_submit import local_environment
    from stellwerk.workspace import Workspace

    workspace = Workspace.from_config()
    if sum(bool(options[each]) for each in ("conda", "requirements", "pyproject", "package")) > 1:
        raise click.UsageError(
            "Give only one of --conda, --requirements, --pyproject and --package."
        )
    found = local_environment(workspace, name, options)
    if found is None:
        raise click.UsageError(
            "Say what is in it: one of --conda, --requirements, --pyproject and --package, and "
            "what that stands on: --image, --dockerfile or --build-context."
        )
    view = found.saved(workspace)
    if output == "json":
        print_one(view, output)
        return
    known = "" if view.created else " (this definition was registered already)"
    click.echo(f"{view.name}:{view.version}{known}")
    for warning in view.warnings:
        click.echo(f"warning: {warning}", err=True)


@environment.command("list")
@click.option("--curated", is_flag=True, help="Those that come with the platform instead.")
@output_option
def list_environments(curated: bool, output: str) -> None:
    """List registered environments, all versions of each."""
    from stellwerk.api import EnvironmentView
    from stellwerk.cli.output import print_list
    from stellwerk.workspace import Workspace

    last: dict[str, Any] = {"created": lambda view: view.created_at}
    if curated:
        last = {"description": lambda view: view.description}
    params = {"curated": "true" if curated else None}
    print_list(
        Workspace.from_config().client.pages("/environments", EnvironmentView, params),
        {
            "name": lambda view: view.name,
            "version": lambda view: view.version,
            "state": lambda view: view.state,
            "env_id": lambda view: view.env_id[:12],
            **last,
        },
        output,
    )


@environment.command("show")
@click.argument("name", metavar="NAME[:VERSION]")
@output_option
def show(name: str, output: str) -> None:
    """Show one environment."""
    from stellwerk.api import EnvironmentView
    from stellwerk.cli.output import print_one
    from stellwerk.client import segment
    from stellwerk.workspace import Workspace

    title, version = name_and_version(name)
    client = Workspace.from_config().client
    path = f"/environments/{segment(title)}"
    print_one(client.get(path, EnvironmentView, {"version": version}), output)


@environment.command("build")
@click.argument("name", metavar="NAME[:VERSION]")
@click.option("--rebuild", is_flag=True, help="Build again though it is there.")
@click.option("-d", "--detach", is_flag=True, help="Do not wait for the build.")
@output_option
def build(name: str, rebuild: bool, detach: bool, output: str) -> None:
    """Prepare an environment now, and show the log of its build."""
    from stellwerk.cli.output import print_one
    from stellwerk.environment import Environment
    from stellwerk.workspace import Workspace

    title, version = name_and_version(name)
    workspace = Workspace.from_config()
    details = Environment.get(workspace, title, version).build(workspace, rebuild=rebuild)
    before = not rebuild and details.view.state == "ready"
    if not detach:
        details.wait_for_completion(out=sys.stderr)
    if output == "json":
        print_one(details.view, output)
    else:
        seconds = "" if details.view.seconds is None else f" in {details.view.seconds:.1f} s"
        told = f" (built before{seconds}; --rebuild builds it again)" if before else seconds
        click.echo(f"{name}: {details.view.state}{told}")


@environment.command("prune")
@click.option("--older-than", metavar="AGE", help="Not wanted for so long: 30d, 12h, 90m, 45s.")
@click.option("--max-size", metavar="SIZE", help="Longest unused ones, down to: 20GB, 500MB.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.option(
    "--from-registry",
    is_flag=True,
    help="Images leave the registry too: reruns on exactly these are not possible any more.",
)
@output_option
def prune(
    older_than: str | None, max_size: str | None, dry_run: bool, from_registry: bool, output: str
) -> None:
    """Remove prepared environments that no live run uses, by age and size.

    What was wanted in the last ten minutes stays, and so do definitions: what is asked for again is
    prepared again, with the versions of then. Sizes count shared files in each environment.
    """
    from stellwerk.api import PruneRequest, PruneView
    from stellwerk.cli.output import print_one, print_table
    from stellwerk.sizes import size_text
    from stellwerk.workspace import Workspace

    if older_than is None and max_size is None:
        raise click.UsageError("Say what may go: --older-than, --max-size, or both.")
    request = PruneRequest(
        older_than_s=None if older_than is None else seconds(older_than, "--older-than"),
        max_bytes=None if max_size is None else size(max_size, "--max-size"),
        dry_run=dry_run,
        from_registry=from_registry,
    )
    client = Workspace.from_config().client
    view = client.call("POST", "/environments/prune", PruneView, body=request)
    if output == "json":
        print_one(view, output)
        return
    if view.removed:
        rows = [
            [each.env_id[:12], size_text(each.bytes), f"{each.idle_s / 86_400:.1f} d"]
            for each in view.removed
        ]
        print_table(["ENV_ID", "SIZE", "UNUSED FOR"], rows)
    verb = "would go" if view.dry_run else "removed"
    click.echo(
        f"{len(view.removed)} {verb} ({size_text(view.freed_bytes)}), {view.kept} kept "
        f"({size_text(view.kept_bytes)})"
    )


@environment.command("warm")
@click.argument("name", metavar="NAME[:VERSION]")
@click.option("--compute", default="local", show_default=True, help="Cluster whose node it is.")
@output_option
def warm(name: str, compute: str, output: str) -> int:
    """Load an environment's frameworks on a node, so that the next run begins at once.

    This is a run of its own that does nothing; every run of an environment leaves it warm too.
    """
    from stellwerk.cli.failures import code_of_status
    from stellwerk.cli.output import print_one
    from stellwerk.experiment import Experiment
    from stellwerk.workspace import Workspace

    title, version = name_and_version(name)
    run = Experiment(Workspace.from_config(), "environment-warm").warm(title, version, compute)
    run.wait_for_completion(raise_on_error=False)
    view = run.view
    if output == "json":
        print_one(view, output)
    elif view.status == "Completed":
        seconds = view.start.timings_s.get("launch", 0.0) if view.start else 0.0
        click.echo(f"{name} is warm on {view.node_id}, after {seconds:.1f} s")
    else:
        click.echo(f"{name}: {view.error.message if view.error else view.status}", err=True)
    return code_of_status(view.status)


@environment.command("sbom")
@click.argument("name", metavar="NAME[:VERSION]")
def sbom(name: str) -> None:
    """Print the bill of materials of an environment's build: CycloneDX 1.6, JSON."""
    from stellwerk.client import segment
    from stellwerk.workspace import Workspace

    title, version = name_and_version(name)
    client = Workspace.from_config().client
    document = client.content(f"/environments/{segment(title)}/sbom", {"version": version})
    click.echo(document.decode())


@environment.command("log")
@click.argument("name", metavar="NAME[:VERSION]")
def log(name: str) -> None:
    """Print the log of an environment's build; goes on while it is under way."""
    from stellwerk.api import BuildView, EnvironmentView
    from stellwerk.client import segment
    from stellwerk.environment import ImageBuildDetails
    from stellwerk.text import LogText
    from stellwerk.workspace import Workspace

    workspace = Workspace.from_config()
    title, version = name_and_version(name)
    path = f"/environments/{segment(title)}"
    found = workspace.client.get(path, EnvironmentView, {"version": version})
    view = workspace.client.get(f"/builds/{segment(found.env_id)}", BuildView)
    text = LogText(neutralise=sys.stdout.isatty())
    for chunk in ImageBuildDetails(workspace.client, view).logs():
        sys.stdout.write(text.feed(chunk))
        sys.stdout.flush()
