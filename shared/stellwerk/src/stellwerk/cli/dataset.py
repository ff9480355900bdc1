"""``stellwerk dataset``."""

from typing import TYPE_CHECKING

import click

from stellwerk.cli.options import name_and_version, output_option, pairs

if TYPE_CHECKING:
    from stellwerk.dataset import FileDataset, TabularDataset


@click.group()
def dataset() -> None:
    """Register, list, show and download datasets."""


@dataset.command("register")
@click.argument("name")
@click.argument("paths", nargs=-1, required=True, metavar="PATH_OR_URL...")
@click.option("--new-version", is_flag=True, help="Make a new version where the name exists.")
@click.option("--description")
@click.option("--tag", multiple=True, metavar="K=V", help="A tag. Repeatable.")
@output_option
def register(
    name: str,
    paths: tuple[str, ...],
    new_version: bool,
    description: str | None,
    tag: tuple[str, ...],
    output: str,
) -> None:
    """Register local files and folders, or web addresses, under NAME."""
    from stellwerk.cli.output import print_one
    from stellwerk.dataset import Dataset
    from stellwerk.workspace import Workspace

    workspace = Workspace.from_config()
    if any("://" in path for path in paths):
        made = Dataset.File.from_files(list(paths))
    else:
        made = Dataset.File.from_local(workspace, paths, show_progress=True)
    registered = made.register(
        workspace, name, description, pairs(tag, "--tag"), create_new_version=new_version
    )
    if output == "json":
        print_one(registered.saved(None), output)
    else:
        known = "" if registered.created else " (this content was registered already)"
        click.echo(f"{registered.name}:{registered.version}{known}")


@dataset.command("list")
@output_option
def list_datasets(output: str) -> None:
    """List the latest version of every dataset."""
    from stellwerk.api import DatasetView
    from stellwerk.cli.output import print_list
    from stellwerk.workspace import Workspace

    print_list(
        Workspace.from_config().client.pages("/datasets", DatasetView),
        {
            "name": lambda view: view.name,
            "version": lambda view: view.version,
            "type": lambda view: "tabular" if view.tabular else "files",
            "files": lambda view: view.files,
            "bytes": lambda view: view.bytes,
            "source": lambda view: view.source,
            "created": lambda view: view.created_at,
        },
        output,
    )


@dataset.command("show")
@click.argument("name", metavar="NAME[:VERSION]")
@output_option
def show(name: str, output: str) -> None:
    """Show one dataset."""
    from stellwerk.cli.output import print_one

    print_one(_find(name).saved(None), output)


@dataset.command("files")
@click.argument("name", metavar="NAME[:VERSION]")
@output_option
def files(name: str, output: str) -> None:
    """List a dataset's files."""
    from stellwerk.cli.output import print_list

    print_list(
        _find(name).files(),
        {
            "path": lambda view: view.path,
            "bytes": lambda view: view.size,
            "sha256": lambda view: (view.sha256 or "")[:12] or None,
        },
        output,
    )


@dataset.command("download")
@click.argument("name", metavar="NAME[:VERSION]")
@click.option("--to", "folder", type=click.Path(file_okay=False), default=".", show_default=True)
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
@output_option
def download(name: str, folder: str, overwrite: bool, output: str) -> None:
    """Download a dataset's files."""
    from stellwerk.cli.output import print_json

    written = _find(name).download(folder, overwrite, show_progress=True)
    if output == "json":
        print_json(written)
    else:
        click.echo("\n".join(written))


def _find(text: str) -> "FileDataset | TabularDataset":
    from stellwerk.dataset import Dataset
    from stellwerk.workspace import Workspace

    name, version = name_and_version(text)
    return Dataset.get_by_name(Workspace.from_config(), name, version or "latest")
