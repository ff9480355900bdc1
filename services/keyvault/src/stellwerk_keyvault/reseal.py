"""Keeps every value under the newest master key, so that older ones can be taken away."""

import structlog

from stellwerk.errors import ConflictError
from stellwerk_keyvault.cipher import Cipher
from stellwerk_keyvault.domain import Sealed
from stellwerk_keyvault.store import SecretStore

log = structlog.get_logger()


async def reseal(store: SecretStore, cipher: Cipher) -> None:
    """Look at the keys file again and seal anew what another key sealed."""
    cipher.refresh()

    def anew(name: str, sealed: Sealed) -> Sealed | None:
        try:
            return cipher.seal(name, cipher.open(name, sealed))
        except ConflictError:
            return None  # damaged; who asks for the value is told so

    total = 0
    while done := await store.reseal(cipher.older_ids, anew):
        total += done
    if total:
        log.info("values sealed anew", action="secrets_resealed", count=total, key=cipher.key_id)
