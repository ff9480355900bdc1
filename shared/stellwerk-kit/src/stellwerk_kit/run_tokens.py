"""Tokens of runs: signed by the executor that starts an attempt, checked by the gateway.

``swr1.<claims>.<signature>``, base64url; HMAC-SHA256 over what stands before the last dot, with a
key that only these two services can read. Nothing is stored: a token is good for its attempt
until ``expires_at``, and the gateway asks whether the run still lives.
"""

import base64
import binascii
import hashlib
import hmac
import json
from dataclasses import asdict, dataclass
from pathlib import Path

PREFIX = "swr1."
SHORTEST_KEY = 32
LONGEST_TOKEN = 1000


@dataclass(frozen=True, slots=True)
class RunClaims:
    """Whose token it is. ``expires_at`` in seconds since the epoch."""

    run_id: str
    attempt: int
    workspace: str
    expires_at: int


def load_key(path: Path) -> bytes:
    """The signing key. Raises ValueError for a file that holds none."""
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        raise ValueError(f"STELLWERK_RUN_TOKEN_KEY {path}: {error.strerror}") from error
    if len(key) < SHORTEST_KEY:
        raise ValueError(f"STELLWERK_RUN_TOKEN_KEY {path}: a key has at least {SHORTEST_KEY} bytes")
    return key


def issue(key: bytes, claims: RunClaims) -> str:
    """A token for these claims."""
    content = json.dumps(asdict(claims), separators=(",", ":"), sort_keys=True)
    signed = PREFIX + _encode(content.encode())
    return f"{signed}.{_encode(_signature(key, signed))}"


def read(key: bytes, token: str, now: float) -> RunClaims | None:
    """The claims of a token that was issued with this key and has not expired, else None."""
    if not token.startswith(PREFIX) or len(token) > LONGEST_TOKEN or not token.isascii():
        return None
    signed, _, signature = token.rpartition(".")
    if not hmac.compare_digest(_encode(_signature(key, signed)), signature):
        return None
    try:
        claims = RunClaims(**json.loads(_decode(signed.removeprefix(PREFIX))))
    except (ValueError, TypeError, binascii.Error):
        return None
    return claims if claims.expires_at > now else None


def _signature(key: bytes, signed: str) -> bytes:
    return hmac.digest(key, signed.encode(), hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
