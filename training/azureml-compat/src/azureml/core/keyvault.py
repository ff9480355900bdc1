"""The v1 SDK's Keyvault: secrets of the workspace."""

import logging
from typing import TYPE_CHECKING

from stellwerk import keyvault as native

if TYPE_CHECKING:
    from azureml.core.workspace import Workspace

_log = logging.getLogger(__name__)


class Keyvault:
    """Secrets by name. One that is not there reads as None, with a warning in the log."""

    def __init__(self, workspace: "Workspace", **kwargs: object) -> None:
        del kwargs
        self.workspace = workspace
        self._vault = native.Keyvault(workspace)

    def __repr__(self) -> str:
        return f"Keyvault(Workspace: {self.workspace.name})"

    def set_secret(self, name: str, value: str) -> None:
        """Keep a value, in place of the one before. Raises UserErrorException."""
        self._vault.set_secret(name, value)

    def set_secrets(self, secrets_batch: dict[str, str]) -> None:
        """Keep several values by name."""
        self._vault.set_secrets(secrets_batch)

    def get_secret(self, name: str) -> str | None:
        """The value, or None."""
        return self.get_secrets([name])[name]

    def get_secrets(self, secrets: list[str]) -> dict[str, str | None]:
        """Values by name, None for those that are not there."""
        found = self._vault.get_secrets(secrets)
        for name in (name for name, value in found.items() if value is None):
            _log.warning("the key vault has no secret %r; its value is None here", name)
        return found

    def list_secrets(self) -> list[dict[str, str]]:
        """A ``{"name": …}`` for each secret, never values."""
        return [{"name": name} for name in self._vault.list_secrets()]

    def delete_secret(self, name: str) -> None:
        """Forget a secret. Raises UserErrorException where it is not there."""
        self._vault.delete_secret(name)
