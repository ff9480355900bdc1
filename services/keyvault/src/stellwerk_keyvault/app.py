"""Composition root of the keyvault."""

from stellwerk_keyvault.cipher import Cipher
from stellwerk_keyvault.reseal import reseal
from stellwerk_keyvault.settings import Settings
from stellwerk_keyvault.store import SecretStore
from stellwerk_keyvault.tables import metadata
from stellwerk_keyvault.verbs import SecretList, SecretName, SecretSet, Verbs
from stellwerk_kit.service import Runtime

KEYS_CHECK_S = 30.0


async def build(runtime: Runtime[Settings]) -> None:
    """Compose the service on ``runtime``; raises ValueError for a bad keys file."""
    settings = runtime.settings
    cipher = Cipher(settings.master_keys_file)
    store = SecretStore(await runtime.database(metadata), settings.max_secrets)

    async def keep_resealed() -> None:
        await reseal(store, cipher)

    runtime.every("reseal", KEYS_CHECK_S, keep_resealed).hint()  # once at the start
    verbs = Verbs(store, cipher)
    runtime.rpc("secret-set", SecretSet, verbs.set)
    runtime.rpc("secret-get", SecretName, verbs.get)
    runtime.rpc("secret-list", SecretList, verbs.list_secrets)
    runtime.rpc("secret-delete", SecretName, verbs.delete)
