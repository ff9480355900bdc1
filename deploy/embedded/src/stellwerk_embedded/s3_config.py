"""Configuration of the embedded S3 server (SeaweedFS, all its parts in one process)."""

import json
import secrets
from collections.abc import Mapping
from pathlib import Path

from stellwerk_embedded.layout import Layout, write_private

BUCKET = "stellwerk"
PORTS = {
    "s3.port": "s3",
    "s3.port.grpc": "s3-grpc",
    "master.port": "s3-master",
    "master.port.grpc": "s3-master-grpc",
    "volume.port": "s3-volume",
    "volume.port.grpc": "s3-volume-grpc",
    "filer.port": "s3-filer",
    "filer.port.grpc": "s3-filer-grpc",
    "admin.port": "s3-admin",
    "admin.port.grpc": "s3-admin-grpc",
}
SIGNED = ("jwt.signing", "jwt.signing.read", "jwt.filer_signing", "jwt.filer_signing.read")
"""Doors beside S3 itself that are open to everybody on the machine unless they have a key."""


def write(layout: Layout, ports: Mapping[str, int]) -> None:
    """Write identities, keys and options; the keys once."""
    keys = json.loads((layout.secrets / "s3.json").read_text())
    (layout.s3 / "data").mkdir(mode=0o700, exist_ok=True)
    write_private(layout.s3 / "s3.json", json.dumps(identities(keys), indent=1) + "\n")
    write_private(options_path(layout), options(layout.s3, ports))
    path = layout.s3 / "security.toml"
    if not path.exists():
        write_private(path, security())


def security() -> str:
    """New keys for the doors beside S3."""
    return "\n".join(f'[{name}]\nkey = "{secrets.token_hex(24)}"\n' for name in SIGNED)


def options_path(layout: Layout) -> Path:
    """The file of options."""
    return layout.s3 / "weed.options"


def identities(keys: Mapping[str, str]) -> dict[str, object]:
    """The one identity: the platform's. Without any, everybody would be an administrator."""
    login = {"accessKey": keys["access_key"], "secretKey": keys["secret_key"]}
    actions = ["Admin", "Read", "Write", "List", "Tagging"]
    return {"identities": [{"name": "platform", "credentials": [login], "actions": actions}]}


def options(folder: Path, ports: Mapping[str, int]) -> str:
    """Options, one a line: everything on loopback, nothing reported out, no pages to click."""
    chosen: dict[str, object] = {
        "dir": folder / "data",
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **{option: ports[name] for option, name in PORTS.items()},
        "s3.config": folder / "s3.json",
        "s3.port.iceberg": 0,
        "s3.port.lance": 0,
        "webdav": "false",
        "admin.ui": "false",
        "master.telemetry": "false",
        # A master that takes up its old election state polls a thousand times a second ever after;
        # the one master of one volume server learns all it needs from that.
        "master.resumeState": "false",
    }
    return "".join(f"{name}={text}\n" for name, text in chosen.items())


def command(weed: str, layout: Layout) -> tuple[str, ...]:
    """Command line."""
    return (weed, "-logtostderr=true", "mini", f"-options={options_path(layout)}")
