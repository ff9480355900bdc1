"""Configuration of the embedded S3 server (SeaweedFS)."""

import json
import secrets

from stellwerk_embedded.layout import Layout, write_private

FLAGS = {
    "s3.port": "s3",
    "s3.port.grpc": "s3-grpc",
    "master.port": "s3-master",
    "master.port.grpc": "s3-master-grpc",
    "volume.port": "s3-volume",
    "volume.port.grpc": "s3-volume-grpc",
    "filer.port": "s3-filer",
    "filer.port.grpc": "s3-filer-grpc",
    "admin.port": "s3-admin",
}


def write(layout: Layout) -> None:
    """Write identities and the keys that close the filer's own, otherwise open, port."""
    keys = json.loads((layout.secrets / "s3.json").read_text())
    identity = {
        "name": "platform",
        "credentials": [{"accessKey": keys["access_key"], "secretKey": keys["secret_key"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    folder = layout.home / "s3"
    (folder / "data").mkdir(exist_ok=True)
    write_private(folder / "s3.json", json.dumps({"identities": [identity]}))
    if not (folder / "security.toml").exists():
        sections = (
            "jwt.signing",
            "jwt.signing.read",
            "jwt.filer_signing",
            "jwt.filer_signing.read",
        )
        text = "".join(f'[{name}]\nkey = "{secrets.token_hex(24)}"\n' for name in sections)
        write_private(folder / "security.toml", text)


def command(weed: str, layout: Layout, ports: dict[str, int]) -> list[str]:
    """Command line: everything on loopback, nothing reported out."""
    folder = layout.home / "s3"
    options = {
        "dir": str(folder / "data"),
        "ip": "127.0.0.1",
        "ip.bind": "127.0.0.1",
        **{flag: str(ports[name]) for flag, name in FLAGS.items()},
        "master.telemetry": "false",
        "webdav": "false",
        "admin.ui": "false",
        "s3.port.iceberg": "0",
        "s3.port.lance": "0",
        "s3.config": str(folder / "s3.json"),
    }
    return [weed, "-logtostderr=true", "mini", *(f"-{key}={text}" for key, text in options.items())]
