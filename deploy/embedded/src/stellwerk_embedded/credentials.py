"""Secrets of one stack: made once, kept in files only their owner can read.

``secrets/nats-<user>.json`` for each user of the broker, ``secrets/s3.json`` for the object store,
``secrets/tokens.json`` with the hashes of the gateway's tokens, ``secrets/keyvault-keys.json`` with
the keyvault's master keys, ``secrets/run-tokens.key`` that signs the tokens of runs. The one token
that is made here lies in ``client.json`` alone; without that file there is a new one.
"""

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import Any

from stellwerk_embedded.layout import SERVICES, Layout, write_private
from stellwerk_keyvault import keys

CLIENT, ADMIN = "client", "admin"
USERS = (*SERVICES, CLIENT, ADMIN)


def ensure(layout: Layout) -> None:
    """Make what is missing: passwords of the broker's users, keys of the object store."""
    for user in USERS:
        path = layout.secrets / f"nats-{user}.json"
        if not path.exists():
            write_private(path, json.dumps({"user": user, "password": secrets.token_hex(24)}))
    path = layout.secrets / "s3.json"
    if not path.exists():
        pair = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(24)}
        write_private(path, json.dumps(pair))
    keys.ensure(layout.secrets / "keyvault-keys.json")
    if not layout.run_token_key.exists():
        write_private(layout.run_token_key, secrets.token_hex(32))


def nats_password(layout: Layout, user: str) -> str:
    """Password of a user of the broker."""
    return str(json.loads((layout.secrets / f"nats-{user}.json").read_text())["password"])


def write_client_file(layout: Layout, ports: Mapping[str, int]) -> None:
    """What clients on this machine need to know, with a token that the gateway accepts."""
    content = {
        "url": f"http://127.0.0.1:{ports['gateway']}",
        "token": _token(layout),
        "nats_url": f"nats://127.0.0.1:{ports['nats']}",
        "nats_user": CLIENT,
        "nats_password": nats_password(layout, CLIENT),
        "workspace": "default",
    }
    write_private(layout.client_file, json.dumps(content, indent=1) + "\n")


def _token(layout: Layout) -> str:
    """The administrator's token: the one in use, or a new one that replaces it."""
    path = layout.secrets / "tokens.json"
    entries = _read(path)
    known = entries if isinstance(entries, list) else []
    have = _read(layout.client_file)
    token = have.get("token") if isinstance(have, dict) else None
    if isinstance(token, str) and token and _hashed(token) in (e.get("sha256") for e in known):
        return token
    token = secrets.token_urlsafe(32)
    others = [entry for entry in known if entry.get("name") != ADMIN]
    own = {"name": ADMIN, "sha256": _hashed(token), "scope": "admin"}
    write_private(path, json.dumps([own, *others], indent=1) + "\n")
    return token


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(path: Any) -> Any:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None
