"""The workspace's secrets: passwords and keys that scripts need and no file should hold."""

import re
from typing import TYPE_CHECKING

from stellwerk.api import MAX_SECRET_BYTES, SecretRequest, SecretValueView, SecretView
from stellwerk.client import segment
from stellwerk.errors import NotFoundError, UserError
from stellwerk.ids import VAULT_NAME_PATTERN

if TYPE_CHECKING:
    from stellwerk.workspace import Workspace

_NAME = re.compile(VAULT_NAME_PATTERN)


class Keyvault:
    """Secrets by name; letter case of names does not matter. No error repeats a value."""

    def __init__(self, workspace: "Workspace") -> None:
        self.workspace = workspace

    def __repr__(self) -> str:
        return f"Keyvault(Workspace: {self.workspace.name})"

    def set_secret(self, name: str, value: str) -> None:
        """Keep a value, in place of the one before. At most 25 KiB of text.

        Raises UserError for a name or a value that cannot be kept.
        """
        path = _path(name)
        if not isinstance(value, str):
            raise UserError(f"value: got {type(value).__name__}; a secret is text", field="value")
        size = len(value.encode("utf-8", "surrogatepass"))
        if size > MAX_SECRET_BYTES:
            raise UserError(
                f"value: it has {size} bytes; a secret has at most {MAX_SECRET_BYTES}",
                code="field.too_long",
                field="value",
            )
        client = self.workspace.client
        client.call("PUT", path, SecretView, body=SecretRequest(value=value))

    def set_secrets(self, secrets_batch: dict[str, str]) -> None:
        """Keep several values by name."""
        for name, value in secrets_batch.items():
            self.set_secret(name, value)

    def get_secret(self, name: str) -> str:
        """The value. Raises NotFoundError (secret.not_found)."""
        return self.workspace.client.get(_path(name), SecretValueView).value

    def get_secrets(self, secrets: list[str]) -> dict[str, str | None]:
        """Values by name; None for those that are not there."""
        found: dict[str, str | None] = {}
        for name in secrets:
            try:
                found[name] = self.get_secret(name)
            except NotFoundError:
                found[name] = None
        return found

    def list_secrets(self) -> list[str]:
        """All names in order, never values."""
        return [view.name for view in self.workspace.client.pages("/secrets", SecretView)]

    def delete_secret(self, name: str) -> None:
        """Forget a secret. Raises NotFoundError."""
        self.workspace.client.call("DELETE", _path(name), SecretView)


def _path(name: str) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise UserError(
            f"name: got {str(name)[:150]!r}; use 1 to 127 letters, digits and '-'",
            code="name.charset",
            field="name",
        )
    return f"/secrets/{segment(name)}"
