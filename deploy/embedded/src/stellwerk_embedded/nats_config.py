"""Configuration of the embedded nats-server. JSON, which its configuration language contains."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stellwerk_embedded import credentials, permissions
from stellwerk_embedded.layout import Layout, write_private
from stellwerk_kit.topology import STREAMS

GIB = 1024**3
MIB = 1024**2
MAX_PAYLOAD = 8 * MIB


def write(layout: Layout, ports: Mapping[str, int]) -> None:
    """Write ``nats/nats.conf``."""
    passwords = {user: credentials.nats_password(layout, user) for user in credentials.USERS}
    content = config(layout.nats / "data", ports, passwords, store_limit(layout.home))
    # The broker knows no \uXXXX: a data folder with such letters is written as it is.
    write_private(path(layout), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def path(layout: Layout) -> Path:
    """Where it lies."""
    return layout.nats / "nats.conf"


def store_limit(home: Path) -> int:
    """Seven tenths of the volume's free space, but never less than the streams claim; bytes."""
    claimed = sum(stream.max_bytes for stream in STREAMS)
    return max(claimed + GIB, int(shutil.disk_usage(home).free * 0.7))


def config(
    data: Path, ports: Mapping[str, int], passwords: Mapping[str, str], store_bytes: int
) -> dict[str, Any]:
    """The whole configuration: loopback only, every write on disk before it is acknowledged."""
    addresses = {
        "listen": f"127.0.0.1:{ports['nats']}",
        "http": f"127.0.0.1:{ports['nats-monitor']}",
    }
    users = authorization(passwords, permissions.everybody())
    return addresses | options(data, store_bytes) | {"authorization": users}


def authorization(
    passwords: Mapping[str, str], allowed: Mapping[str, permissions.Permissions]
) -> dict[str, Any]:
    """The users of the broker; the administrator may do everything."""
    users: list[dict[str, Any]] = []
    for name, password in passwords.items():
        user: dict[str, Any] = {"user": name, "password": password}
        if name != credentials.ADMIN:
            user["permissions"] = allowed[name].config()
        users.append(user)
    return {"timeout": 5, "users": users}


def options(data: Path, store_bytes: int) -> dict[str, Any]:
    """What is the same wherever the broker listens."""
    return {
        "server_name": "stellwerk",
        "max_payload": MAX_PAYLOAD,
        "max_connections": 2000,
        "ping_interval": "10s",
        "ping_max": 3,
        "write_deadline": "10s",
        "jetstream": {
            "store_dir": str(data),
            "sync_interval": "always",
            "max_memory_store": 256 * MIB,
            "max_file_store": store_bytes,
        },
    }
