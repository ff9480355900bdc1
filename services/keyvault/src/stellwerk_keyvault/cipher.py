"""Sealing and opening values: AES-256-GCM under the master keys of a file."""

import os
from pathlib import Path

import structlog
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stellwerk_keyvault import keys
from stellwerk_keyvault.domain import Sealed, bound_to, unreadable

NONCE_BYTES = 12

log = structlog.get_logger()


class Cipher:
    """The keys in use. Raises ValueError for a file that holds none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._keys = self._load()
        self._seen = _version(path)

    @property
    def key_id(self) -> str:
        """The key that seals."""
        return next(iter(self._keys))

    @property
    def older_ids(self) -> tuple[str, ...]:
        """The keys that only open."""
        return tuple(self._keys)[1:]

    def seal(self, name: str, value: str) -> Sealed:
        """Encrypt a value under its (folded) name, with a nonce of its own."""
        nonce = os.urandom(NONCE_BYTES)
        key_id = self.key_id
        data = self._keys[key_id].encrypt(nonce, value.encode(), bound_to(name, key_id))
        return Sealed(key_id, nonce + data)

    def open(self, name: str, sealed: Sealed) -> str:
        """The value. Raises ConflictError ``secret.unreadable``."""
        key = self._keys.get(sealed.key_id)
        if key is None:
            raise unreadable(name, sealed.key_id, known=False)
        nonce, data = sealed.data[:NONCE_BYTES], sealed.data[NONCE_BYTES:]
        try:
            return key.decrypt(nonce, data, bound_to(name, sealed.key_id)).decode()
        except (InvalidTag, ValueError):  # ValueError: shorter than a nonce
            raise unreadable(name, sealed.key_id, known=True) from None

    def refresh(self) -> None:
        """Take over a changed file; keep the keys of before when the new file is bad."""
        try:
            version = _version(self._path)
            if version == self._seen:
                return
            self._keys, self._seen = self._load(), version
        except (OSError, ValueError) as error:
            log.warning("master keys not usable", action="keys_kept", error=str(error))
            return
        log.info("master keys read again", action="keys_reloaded", count=len(self._keys))

    def _load(self) -> dict[str, AESGCM]:
        return {each.id: AESGCM(each.key) for each in keys.load(self._path)}


def _version(path: Path) -> tuple[int, int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size, found.st_ino
