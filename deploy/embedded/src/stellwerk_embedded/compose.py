"""First start of the platform in containers: ``docker-compose.yml`` at the top of the repository.

``python -m stellwerk_embedded.compose init`` makes credentials and configuration once, each file
for the one role that reads it; a second run changes nothing but what a new release adds.
``client`` prints what a client needs as JSON, ``token`` the token alone, ``passwd`` the lines of
``/etc/passwd`` for the image. Every role is a user of its own, without a password or a shell.
"""

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stellwerk_embedded import nats_config, permissions, s3_config
from stellwerk_embedded.credentials import ADMIN, CLIENT
from stellwerk_embedded.layout import SERVICES
from stellwerk_keyvault import keys

GROUP = 10_000
"""Of every role that talks to the object store."""
RUN_TOKENS = 10_004
"""Of the roles that sign and check the tokens of runs: executors and the gateway."""
ROLES = {
    "nats": 10_001,
    "objects": 10_002,
    "registry": 10_003,
    "topology": 10_010,
    "gateway": 10_011,
    "scheduler": 10_012,
    "environment-build": 10_013,
    "dataset": 10_014,
    "history": 10_015,
    "model-registry": 10_016,
    "keyvault": 10_017,
    "executor-1": 10_031,
    "executor-2": 10_032,
    "executor-gpu": 10_033,
}
"""User ids, fixed for ever: volumes bear them."""
EXECUTORS = tuple(name for name in ROLES if name.startswith("executor-"))
NATS_PORT, MONITOR_PORT = 4222, 8222
ROOT = 0


@dataclass(frozen=True, slots=True)
class Credentials:
    """The volume of credentials, below ``folder``."""

    folder: Path

    def once(self, name: str, make: Callable[[], str], owner: int, group: int = ROOT) -> str:
        """Text of a file that is made at the first start and kept."""
        path = self.folder / name
        if path.exists():
            return path.read_text()
        return self.write(name, make(), owner, group)

    def write(self, name: str, text: str, owner: int, group: int = ROOT) -> str:
        """Write a file for ``owner`` (and ``group``, if it is not root's) alone, atomically."""
        path = self.folder / name
        temporary = path.with_name(f".{path.name}.new")
        with os.fdopen(
            os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
        ) as out:
            out.write(text)
        temporary.chmod(0o440 if group else 0o400)
        os.chown(temporary, owner, group)
        temporary.replace(path)
        return text


def init(folder: Path, volumes: Path, url: str) -> None:
    """Make credentials in ``folder``; each volume in ``volumes`` becomes its role's."""
    for volume in sorted(volumes.iterdir()):
        owner = ROLES.get(volume.name)
        if owner is not None and volume.is_dir():
            os.chown(volume, owner, GROUP)
            volume.chmod(0o755 if volume.name == "environment-build" else 0o700)
    folder.chmod(0o755)
    files = Credentials(folder)
    _nats(files, volumes / "nats")
    _objects(files)
    _executors(files)
    _keyvault(files)
    _client(files, url)


def _nats(files: Credentials, data: Path) -> None:
    """A user of the broker for each role, and the broker's configuration."""
    readers = {ADMIN: ROLES["topology"], CLIENT: ROOT}
    readers |= {name: ROLES[name] for name in (*SERVICES, *EXECUTORS) if name in ROLES}
    passwords = {}
    for user, owner in readers.items():
        text = files.once(f"nats-{user}.json", lambda user=user: _login(user), owner)  # type: ignore[misc]
        passwords[user] = json.loads(text)["password"]
    allowed = {name: permissions.of_service(name) for name in SERVICES if name in readers}
    allowed |= {name: permissions.of_service("gpu-executor", name, user=name) for name in EXECUTORS}
    allowed[CLIENT] = permissions.of_client(*EXECUTORS)
    config = {
        "listen": f"0.0.0.0:{NATS_PORT}",
        "http": f"0.0.0.0:{MONITOR_PORT}",
        **nats_config.options(Path("/data"), nats_config.store_limit(data)),
        "authorization": nats_config.authorization(passwords, allowed),
    }
    files.write("nats.conf", json.dumps(config, indent=1) + "\n", ROLES["nats"])


def _objects(files: Credentials) -> None:
    """One pair of keys, in the form of each store that can be chosen."""
    keys = json.loads(files.once("s3.json", _keys, ROOT, GROUP))
    store = ROLES["objects"]
    files.write("store-user", keys["access_key"], store)
    files.write("store-password", keys["secret_key"], store)
    files.write("store-identities.json", json.dumps(s3_config.identities(keys)), store)
    files.once("security.toml", s3_config.security, store)


def _executors(files: Credentials) -> None:
    """Tokens for the scheduler's lease pages, used while the broker is away; the runs' key."""
    tokens = {}
    for name in EXECUTORS:
        text = files.once(f"{name}.json", _token, ROLES[name])
        tokens[name] = json.loads(text)["token"]
    files.write("executors.json", json.dumps(tokens), ROLES["scheduler"])
    files.once("run-token.key", lambda: secrets.token_hex(32), ROOT, RUN_TOKENS)


def _keyvault(files: Credentials) -> None:
    """Its master keys; a volume without them is worth nothing."""
    path = files.folder / "keyvault-keys.json"
    keys.ensure(path)
    path.chmod(0o400)
    os.chown(path, ROLES["keyvault"], ROOT)


def _client(files: Credentials, url: str) -> None:
    """The administrator's token for whoever rules the engine; the gateway gets its hash only."""
    token = json.loads(files.once("client-token.json", _token, ROOT))["token"]
    content = {"url": url, "token": token, "workspace": "default"}
    files.write("client.json", json.dumps(content, indent=1) + "\n", ROOT)
    digest = hashlib.sha256(token.encode()).hexdigest()
    entries = [{"name": ADMIN, "sha256": digest, "scope": "admin"}]
    files.write("tokens.json", json.dumps(entries), ROLES["gateway"])


def _login(user: str) -> str:
    return json.dumps({"user": user, "password": secrets.token_hex(24)})


def _keys() -> str:
    return json.dumps({"access_key": secrets.token_hex(10), "secret_key": secrets.token_hex(24)})


def _token() -> str:
    return json.dumps({"token": secrets.token_urlsafe(32)})


def _passwd() -> str:
    return "".join(
        f"{name}:x:{number}:{GROUP}:Stellwerk {name}:/tmp:/usr/sbin/nologin\n"
        for name, number in ROLES.items()
    )


def main(verb: str) -> None:
    """Run one of the verbs; folders are fixed by ``docker-compose.yml``."""
    folder = Path(os.environ.get("STELLWERK_CREDENTIALS", "/credentials"))
    if verb == "init":
        init(folder, Path("/volumes"), os.environ["STELLWERK_URL"])
    elif verb == "client":
        sys.stdout.write((folder / "client.json").read_text())
    elif verb == "token":
        sys.stdout.write(json.loads((folder / "client.json").read_text())["token"] + "\n")
    elif verb == "passwd":
        sys.stdout.write(_passwd())
    else:
        sys.exit("usage: python -m stellwerk_embedded.compose init|client|token|passwd")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) == 2 else "")
