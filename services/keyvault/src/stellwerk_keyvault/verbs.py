"""The service's request/reply verbs, with their request models.

A value is in a request to ``secret-set`` and in a reply to ``secret-get``, and nowhere else.
"""

from typing import Annotated

import structlog
from pydantic import ConfigDict, Field

from stellwerk.api import Page, SecretValueView, SecretView
from stellwerk.runspec import Spec
from stellwerk_keyvault.cipher import Cipher
from stellwerk_keyvault.domain import check_value, folded
from stellwerk_keyvault.store import SecretStore

log = structlog.get_logger()


class SecretSet(Spec):
    """``secret-set``. Neither its repr nor an error about it shows the value."""

    model_config = ConfigDict(hide_input_in_errors=True)

    name: str
    value: str = Field(repr=False)


class SecretName(Spec):
    """``secret-get`` and ``secret-delete``."""

    name: str


class SecretList(Spec):
    """``secret-list``."""

    limit: Annotated[int, Field(ge=1, le=1000)] = 100
    cursor: str | None = None


class Verbs:
    """The answers."""

    def __init__(self, store: SecretStore, cipher: Cipher) -> None:
        self._store, self._cipher = store, cipher

    async def set(self, request: SecretSet) -> SecretView:
        """Keep a value, in place of the one before."""
        name = folded(request.name)
        check_value(request.value)
        view = await self._store.put(request.name, self._cipher.seal(name, request.value))
        log.info("secret set", action="secret_set", secret=view.name)
        return view

    async def get(self, request: SecretName) -> SecretValueView:
        """The value of one secret."""
        view, sealed = await self._store.get(request.name)
        value = self._cipher.open(folded(request.name), sealed)
        return SecretValueView(**view.model_dump(), value=value)

    async def list_secrets(self, request: SecretList) -> Page[SecretView]:
        """Names and times, never values."""
        return await self._store.page(request.limit, request.cursor)

    async def delete(self, request: SecretName) -> SecretView:
        """Forget one secret."""
        view = await self._store.delete(request.name)
        log.info("secret deleted", action="secret_deleted", secret=view.name)
        return view
