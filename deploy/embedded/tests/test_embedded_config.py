"""What is written into a data folder: ports, secrets, configuration, environments."""

import hashlib
import json
import os
import socket
import stat
import sys
from pathlib import Path

import pytest
from embedded_setup import Prepared

from stellwerk.errors import UserError
from stellwerk_embedded import (
    binaries,
    credentials,
    environment,
    nats_config,
    permissions,
    ports,
    prepare,
    s3_config,
)
from stellwerk_embedded.layout import SERVICES, Layout
from stellwerk_embedded.processes import specs
from stellwerk_kit.topology import STREAMS

BASE = ports.assign(40_000) if ports.conflict(40_000) is None else ports.assign(41_000)
PERMISSIONS_FILE = Path(__file__).parents[2] / "nats" / "permissions.json"


def secrets_of(layout: Layout) -> set[str]:
    """Every secret text of a prepared folder."""
    found = {json.loads(layout.client_file.read_text())["token"]}
    for path in layout.secrets.glob("*.json"):
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            found |= {content[key] for key in ("password", "secret_key") if key in content}
    return found


def test_broker_listens_on_loopback_and_syncs_every_message() -> None:
    users = dict.fromkeys(credentials.USERS, "secret")
    config = nats_config.config(Path("/data"), BASE, users, 10 * 1024**3)
    assert config["listen"].startswith("127.0.0.1:")
    assert config["http"].startswith("127.0.0.1:")
    assert config["jetstream"]["sync_interval"] == "always"
    assert "no_auth_user" not in config
    without = [u["user"] for u in config["authorization"]["users"] if "permissions" not in u]
    assert without == ["admin"]


def test_broker_may_store_what_the_streams_claim(tmp_path: Path) -> None:
    assert nats_config.store_limit(tmp_path) > sum(stream.max_bytes for stream in STREAMS)


def test_every_service_publishes_its_own_facts_and_nobody_else_does() -> None:
    granted: dict[str, str] = {}
    for service in SERVICES:
        for subject in permissions.of_service(service).publish:
            if subject.startswith("sw.evt."):
                assert subject not in granted, f"{subject}: {granted[subject]} and {service}"
                granted[subject] = service
    assert granted["sw.evt.run.*.completed"] == "scheduler"
    assert granted["sw.evt.attempt.*.exited.local"] == "gpu-executor"
    assert granted["sw.evt.node.local.joined"] == "gpu-executor"


def test_permissions_file_is_up_to_date() -> None:
    config = {name: allowed.config() for name, allowed in permissions.everybody().items()}
    assert json.loads(PERMISSIONS_FILE.read_text()) == config, (
        "run: python -m stellwerk_embedded.permissions > deploy/nats/permissions.json"
    )


def test_object_store_is_closed_but_for_its_one_identity(tmp_path: Path) -> None:
    options = dict(line.split("=", 1) for line in s3_config.options(tmp_path, BASE).splitlines())
    assert options["ip"] == options["ip.bind"] == "127.0.0.1"
    assert options["master.telemetry"] == "false"
    assert options["admin.ui"] == options["webdav"] == "false"
    # The store's own worker looks for its administration there and tries again for ever.
    assert int(options["admin.port.grpc"]) == int(options["admin.port"]) + 10_000
    keys = {"access_key": "a", "secret_key": "s"}
    assert len(s3_config.identities(keys)["identities"]) == 1


def test_no_secret_is_in_a_command_line_or_an_environment(prepared: Prepared) -> None:
    secrets = secrets_of(prepared.layout)
    assert len(secrets) == len(credentials.USERS) + 2
    for spec in specs(prepared.layout, prepared.ports):
        for secret in secrets:
            assert secret not in " ".join([*spec.command, *spec.environment.values()]), spec.name


def test_everything_in_the_folder_is_private(prepared: Prepared) -> None:
    home = prepared.layout.home
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    for path in home.rglob("*"):
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))


def test_secrets_are_made_once(prepared: Prepared) -> None:
    before = secrets_of(prepared.layout)
    credentials.ensure(prepared.layout)
    credentials.write_client_file(prepared.layout, prepared.ports)
    assert secrets_of(prepared.layout) == before


def test_token_is_kept_as_a_hash_only_and_replaced_when_its_file_is_lost(
    prepared: Prepared,
) -> None:
    layout = prepared.layout
    tokens = layout.secrets / "tokens.json"
    token = json.loads(layout.client_file.read_text())["token"]
    assert [entry["sha256"] for entry in json.loads(tokens.read_text())] == [
        hashlib.sha256(token.encode()).hexdigest()
    ]
    for path in layout.secrets.iterdir():
        assert token not in path.read_text()
    other = {"name": "colleague", "sha256": "0" * 64, "scope": "read"}
    tokens.write_text(json.dumps([*json.loads(tokens.read_text()), other]))
    layout.client_file.unlink()
    credentials.write_client_file(layout, prepared.ports)
    new = json.loads(layout.client_file.read_text())["token"]
    assert new != token
    assert [entry["name"] for entry in json.loads(tokens.read_text())] == ["admin", "colleague"]


def test_services_get_the_callers_settings_but_not_what_is_for_clients() -> None:
    caller = {
        "PATH": "/bin", "EDITOR": "vi", "AWS_SECRET_ACCESS_KEY": "x",
        "STELLWERK_TIME_PROFILE": "test", "STELLWERK_TOKEN": "t", "STELLWERK_URL": "u",
        "UV_DEFAULT_INDEX": "index", "RATTLER_AUTH_FILE": "/logins",
    }  # fmt: skip
    assert environment.base(caller) == {
        "PATH": "/bin",
        "STELLWERK_TIME_PROFILE": "test",
        "UV_DEFAULT_INDEX": "index",
        "RATTLER_AUTH_FILE": "/logins",
    }


def test_environments_name_every_port_and_folder(prepared: Prepared) -> None:
    layout, chosen = prepared.layout, prepared.ports
    executor = environment.of_service("gpu-executor", layout, chosen)
    gateway = environment.of_service("gateway", layout, chosen)
    assert executor["STELLWERK_SCHEDULER_URL"].endswith(f":{chosen['scheduler-operations']}")
    assert executor["STELLWERK_GATEWAY_URL"].endswith(f":{gateway['STELLWERK_API_PORT']}")
    builder = environment.of_service("environment-build", layout, chosen)
    assert builder["STELLWERK_ENVIRONMENTS_DIR"] == executor["STELLWERK_ENVIRONMENTS_DIR"]
    for name in SERVICES:
        of_one = environment.of_service(name, layout, chosen)
        assert Path(of_one["STELLWERK_DATA_DIR"]).is_dir()
        assert json.loads(Path(of_one["STELLWERK_NATS_CREDENTIALS"]).read_text())["user"] == name


def test_data_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file/home.*--data"):
        prepare.folder(Layout(tmp_path / "file" / "home"))


def test_port_in_use_is_named_with_its_holder_and_what_to_do() -> None:
    base = free_base()
    with listener() as taken:
        taken.bind(("127.0.0.1", base + ports.OFFSETS["s3"]))
        taken.listen()
        with pytest.raises(ports.PortInUseError) as caught:
            ports.assign(base)
    message = caught.value.message
    assert f"port {base + ports.OFFSETS['s3']} (s3) is in use" in message
    assert f"(process {os.getpid()})" in message
    assert "--port BASE" in message


def listener() -> socket.socket:
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return found


def free_base() -> int:
    return next(base for base in range(22_100, 30_000, 40) if ports.conflict(base) is None)


def test_free_ports_are_remembered_and_given_up_only_when_taken(tmp_path: Path) -> None:
    path = tmp_path / "ports.json"
    first = ports.choose(path, 0)
    assert len(set(first.values())) == len(first)
    assert ports.choose(path, None) == ports.choose(path, 0) == ports.remembered(path) == first
    with listener() as taken:
        taken.bind(("127.0.0.1", first["nats"]))
        taken.listen()
        second = ports.choose(path, None)
    assert second["nats"] != first["nats"]


def test_named_ports_are_remembered_and_never_replaced(tmp_path: Path) -> None:
    path, base = tmp_path / "ports.json", free_base()
    ports.choose(path, base)
    with listener() as taken:
        taken.bind(("127.0.0.1", base))
        taken.listen()
        with pytest.raises(ports.PortInUseError):
            ports.choose(path, None)


@pytest.mark.parametrize(
    ("said", "version"),
    [
        ("nats-server: v2.15.1", (2, 15, 1)),
        ("version 8000GB 4.48 pypi linux amd64", (4, 48)),
        ("nonsense", ()),
    ],
)
def test_versions_are_read(said: str, version: tuple[int, ...]) -> None:
    assert binaries.parse(said) == version


def test_old_broker_is_refused_with_what_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "nats-server"
    old.write_text(f"#!{sys.executable}\nprint('nats-server: v2.9.10')\n")
    old.chmod(0o755)
    monkeypatch.setenv("STELLWERK_NATS_SERVER", str(old))
    with pytest.raises(UserError, match=r"version is 2\.9\.10, 2\.14\.3 or newer is needed"):
        binaries.NATS.check()


def test_missing_binary_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STELLWERK_WEED", "/nowhere/weed")
    with pytest.raises(UserError, match=r"STELLWERK_WEED=/nowhere/weed: no such program"):
        binaries.WEED.find()
