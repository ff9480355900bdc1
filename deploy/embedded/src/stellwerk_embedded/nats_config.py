"""Configuration of the embedded nats-server."""

import json
import shutil

from stellwerk_embedded import credentials, permissions
from stellwerk_embedded.layout import SERVICES, Layout, write_private
from stellwerk_embedded.permissions import Permissions

GIB = 1024**3


def write(layout: Layout, ports: dict[str, int]) -> str:
    """Write ``nats/nats.conf``; returns its path."""
    users = [_user(layout, name, permissions.of_service(name)) for name in SERVICES]
    users.append(_user(layout, "client", permissions.of_client()))
    users.append(_user(layout, "admin", None))
    path = layout.home / "nats" / "nats.conf"
    write_private(path, _text(layout, ports, users))
    return str(path)


def store_limit(layout: Layout) -> int:
    """Seven tenths of the free space of the volume, at least 9 GiB of claim, in bytes."""
    return max(9 * GIB, int(shutil.disk_usage(layout.home).free * 0.7))


def _text(layout: Layout, ports: dict[str, int], users: list[str]) -> str:
    store = json.dumps(str(layout.home / "nats" / "data"))
    joined = ",\n    ".join(users)
    return f"""# Written by stellwerk up; changes are overwritten.
server_name: stellwerk
listen: "127.0.0.1:{ports["nats"]}"
http: "127.0.0.1:{ports["nats-monitor"]}"
max_payload: 8MB
ping_interval: "10s"
ping_max: 3
write_deadline: "10s"
max_connections: 2000
jetstream {{
  store_dir: {store}
  sync_interval: always
  max_memory_store: 256MB
  max_file_store: {store_limit(layout)}
}}
authorization {{
  timeout: 5
  users: [
    {joined}
  ]
}}
"""


def _user(layout: Layout, name: str, allowed: Permissions | None) -> str:
    login = (
        f"user: {json.dumps(name)}, password: {json.dumps(credentials.nats_password(layout, name))}"
    )
    if allowed is None:
        return f"{{{login}}}"
    publish = f"allow: {json.dumps(allowed.publish)}"
    if allowed.deny_publish:
        publish += f", deny: {json.dumps(allowed.deny_publish)}"
    text = f"publish: {{{publish}}}, subscribe: {{allow: {json.dumps(allowed.subscribe)}}}"
    if allowed.responses:
        text += ', allow_responses: {max: 1, expires: "60s"}'
    return f"{{{login}, permissions: {{{text}}}}}"
