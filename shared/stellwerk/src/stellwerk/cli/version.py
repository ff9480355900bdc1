"""``stellwerk version``."""

from importlib.metadata import version as installed

import click

from stellwerk.cli.options import output_option


@click.command()
@output_option
def version(output: str) -> None:
    """Show the version of this client, and of the platform where one can be reached."""
    from stellwerk.api import InfoView
    from stellwerk.cli.output import print_json
    from stellwerk.errors import StellwerkError
    from stellwerk.workspace import Workspace

    found: dict[str, str | None] = {"client": installed("stellwerk"), "platform": None, "url": None}
    try:
        workspace = Workspace.from_config()
        found["url"] = workspace.url
        found["platform"] = workspace.client.get("/info", InfoView).version
    except StellwerkError as error:
        click.echo(f"platform: {error.message}", err=True)
    if output == "json":
        print_json(found)
        return
    for name, value in found.items():
        click.echo(f"{name:<9} {value or '-'}")
