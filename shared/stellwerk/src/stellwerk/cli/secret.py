"""``stellwerk secret``. A value is never an argument: other users can read those."""

import sys

import click

from stellwerk.cli.options import output_option


@click.group()
def secret() -> None:
    """Set, list and delete secrets of the workspace.

    Scripts read them: Run.get_context().get_secret(NAME), or
    Workspace.get_default_keyvault().get_secret(NAME).
    """


@secret.command("set")
@click.argument("name")
def set_secret(name: str) -> None:
    """Keep a value, read from stdin or asked for on a terminal.

    From stdin a line break at the very end is left out. For example:
    stellwerk secret set db-password < password.txt
    """
    from stellwerk.keyvault import Keyvault
    from stellwerk.workspace import Workspace

    vault = Keyvault(Workspace.from_config())
    vault.set_secret(name, _value(name))
    click.echo(f"{name}: set", err=True)


@secret.command("list")
@output_option
def list_secrets(output: str) -> None:
    """List names, never values."""
    from stellwerk.api import SecretView
    from stellwerk.cli.output import print_list
    from stellwerk.workspace import Workspace

    print_list(
        Workspace.from_config().client.pages("/secrets", SecretView),
        {
            "name": lambda view: view.name,
            "created": lambda view: view.created_at,
            "updated": lambda view: view.updated_at,
        },
        output,
    )


@secret.command("delete")
@click.argument("name")
def delete(name: str) -> None:
    """Forget a secret."""
    from stellwerk.keyvault import Keyvault
    from stellwerk.workspace import Workspace

    Keyvault(Workspace.from_config()).delete_secret(name)
    click.echo(f"{name}: deleted", err=True)


def _value(name: str) -> str:
    if sys.stdin.isatty():
        text: str = click.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True)
        return text
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        message = "stdin is not UTF-8 text; write binary values in base64."
        raise click.UsageError(message) from None  # the cause would carry the value
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise click.UsageError(f"stdin is empty. For example: stellwerk secret set {name} < FILE")
    return text
