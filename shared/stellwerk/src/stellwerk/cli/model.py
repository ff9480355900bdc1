"""``stellwerk model``."""

from typing import TYPE_CHECKING

import click

from stellwerk.cli.options import name_and_version, output_option, pairs

if TYPE_CHECKING:
    from stellwerk.model import Model


@click.group()
def model() -> None:
    """Register, list, show, download and delete models."""


@model.command("register")
@click.argument("name")
@click.argument("path")
@click.option("--run", "run_id", metavar="RUN", help="PATH is a file or folder of this run.")
@click.option("--description")
@click.option("--framework")
@click.option("--framework-version")
@click.option("--tag", multiple=True, metavar="K=V", help="A tag. Repeatable.")
@output_option
def register(
    name: str,
    path: str,
    run_id: str | None,
    description: str | None,
    framework: str | None,
    framework_version: str | None,
    tag: tuple[str, ...],
    output: str,
) -> None:
    """Make a model version of a run's files, or of a local file or folder."""
    from stellwerk.cli.output import print_one
    from stellwerk.cli.run import find_run
    from stellwerk.model import Model
    from stellwerk.workspace import Workspace

    workspace = Workspace.from_config()
    tags = pairs(tag, "--tag")
    if run_id is None:
        made = Model.register(
            workspace,
            path,
            name,
            tags=tags,
            description=description,
            model_framework=framework,
            model_framework_version=framework_version,
        )
    else:
        made = find_run(workspace, run_id).register_model(
            name,
            path,
            tags=tags,
            description=description,
            model_framework=framework,
            model_framework_version=framework_version,
        )
    if output == "json":
        print_one(made.view, output)
    else:
        click.echo(made.id)


@model.command("list")
@click.option("--name", help="All versions of this model.")
@output_option
def list_models(name: str | None, output: str) -> None:
    """List the latest version of every model."""
    from stellwerk.cli.output import print_list
    from stellwerk.model import Model
    from stellwerk.workspace import Workspace

    print_list(
        [each.view for each in Model.list(Workspace.from_config(), name, latest=name is None)],
        {
            "model": lambda view: f"{view.name}:{view.version}",
            "framework": lambda view: view.framework,
            "files": lambda view: view.files,
            "bytes": lambda view: view.bytes,
            "run": lambda view: (view.lineage.run_id or "")[:12] or None,
            "created": lambda view: view.created_at,
        },
        output,
    )


@model.command("show")
@click.argument("name", metavar="NAME[:VERSION]")
@output_option
def show(name: str, output: str) -> None:
    """Show one model version and what it was made from."""
    from stellwerk.cli.output import print_one

    print_one(_find(name).view, output)


@model.command("download")
@click.argument("name", metavar="NAME[:VERSION]")
@click.option("--to", "folder", type=click.Path(file_okay=False), default=".", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@output_option
def download(name: str, folder: str, overwrite: bool, output: str) -> None:
    """Download a model's files."""
    from stellwerk.cli.output import print_json

    written = _find(name).download(folder, exist_ok=overwrite, show_progress=True)
    if output == "json":
        print_json(written)
    else:
        click.echo(written)


@model.command("delete")
@click.argument("name", metavar="NAME:VERSION")
def delete(name: str) -> None:
    """Delete one version; its number is never used again."""
    if name_and_version(name)[1] is None:
        raise click.UsageError(f"Say which version to delete, for example {name}:1.")
    _find(name).delete()
    click.echo(f"{name}: deleted", err=True)


def _find(text: str) -> "Model":
    from stellwerk.model import Model
    from stellwerk.workspace import Workspace

    name, version = name_and_version(text)
    return Model(Workspace.from_config(), name, version=version)
