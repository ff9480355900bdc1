"""Secrets of one stack: made once, kept in files only their owner can read."""

import hashlib
import json
import secrets

from stellwerk_embedded.layout import SERVICES, Layout, write_private

USERS = (*SERVICES, "client", "admin")


def ensure(layout: Layout) -> None:
    """Make what is missing: bus passwords, S3 keys, the gateway's admin token."""
    for user in USERS:
        path = layout.secrets / f"nats-{user}.json"
        if not path.exists():
            write_private(path, json.dumps({"user": user, "password": secrets.token_hex(24)}))
    path = layout.secrets / "s3.json"
    if not path.exists():
        keys = {"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(24)}
        write_private(path, json.dumps(keys))
    token_path = layout.secrets / "token.json"
    if not token_path.exists():
        token = secrets.token_urlsafe(32)
        write_private(token_path, json.dumps({"token": token}))
        hashed = hashlib.sha256(token.encode()).hexdigest()
        tokens = [{"name": "admin", "sha256": hashed, "scope": "admin"}]
        write_private(layout.secrets / "tokens.json", json.dumps(tokens))


def nats_password(layout: Layout, user: str) -> str:
    """Password of a bus user."""
    return str(json.loads((layout.secrets / f"nats-{user}.json").read_text())["password"])


def write_client_file(layout: Layout, ports: dict[str, int]) -> None:
    """What clients on this machine need to know."""
    content = {
        "url": f"http://127.0.0.1:{ports['gateway']}",
        "token": json.loads((layout.secrets / "token.json").read_text())["token"],
        "nats_url": f"nats://127.0.0.1:{ports['nats']}",
        "nats_user": "client",
        "nats_password": nats_password(layout, "client"),
        "workspace": "default",
    }
    write_private(layout.client_file, json.dumps(content, indent=1))
