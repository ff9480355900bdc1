"""``stellwerk up | down | status | doctor`` as a user types them, with every real process."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from stellwerk_embedded import ports

pytestmark = pytest.mark.servers
STELLWERK = str(Path(sys.executable).parent / "stellwerk")
NAMES = {
    "nats", "s3", "gateway", "scheduler", "environment-build", "dataset", "gpu-executor", "history",
    "model-registry", "keyvault", "supervisor",
}  # fmt: skip


class Home:
    """One data folder and the commands on it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def run(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "STELLWERK_HOME": str(self.path), **more}
        return subprocess.run(
            [STELLWERK, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )

    def told(self) -> dict:
        return json.loads(self.run("status", "-o", "json").stdout)

    def state(self, name: str) -> dict:
        return next(row for row in self.told()["processes"] if row["name"] == name)

    def wait(self, name: str, old_pid: int) -> None:
        """Until a part runs anew and everything answers again."""
        deadline = time.monotonic() + 40
        while True:
            told = self.told()
            row = next(row for row in told["processes"] if row["name"] == name)
            if told["ready"] and row["pid"] != old_pid:
                return
            assert time.monotonic() < deadline, told
            time.sleep(0.05)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path / "home")
    yield home
    home.run("down")


def others(home: Home) -> list[psutil.Process]:
    """Living processes that belong to the folder."""
    mark = str(home.path)
    found = []
    for process in psutil.process_iter():
        try:
            data = process.environ().get("STELLWERK_DATA_DIR", "")
            if any(mark in text for text in [*process.cmdline(), data]):
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_doctor_finds_nothing_wrong_before_the_first_start(home: Home) -> None:
    done = home.run("doctor", "-o", "json")
    findings = {finding["name"]: finding for finding in json.loads(done.stdout)}
    assert findings["nats server"]["state"] == findings["installer"]["state"] == "ok"
    assert findings["client file"]["fix"] == "stellwerk up writes it"
    problems = [name for name, finding in findings.items() if finding["state"] == "problem"]
    assert set(problems) <= {"disk", "ports"}, findings
    assert done.returncode == (1 if problems else 0)
    assert not home.path.exists(), "doctor changes nothing"


@pytest.mark.parametrize("command", ["status", "down"])
def test_commands_without_a_platform(home: Home, command: str) -> None:
    done = home.run(command)
    assert done.returncode == (1 if command == "status" else 0)
    assert f"Nothing runs with {home.path}" in done.stdout


def test_port_in_use_is_an_error_before_anything_starts(home: Home) -> None:
    base = next(base for base in range(22_100, 30_000, 40) if ports.conflict(base) is None)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", base + 1))
        taken.listen()
        done = home.run("up", "--port", str(base))
    assert done.returncode == 5
    assert f"port {base + 1} (nats) is in use by" in done.stderr
    assert "--port BASE" in done.stderr
    assert not others(home)


@pytest.mark.parametrize("port", ["80", "60000", "-1"])
def test_port_out_of_range_is_refused(home: Home, port: str) -> None:
    done = home.run("up", "--port", port)
    assert done.returncode == 2
    assert "allowed are 0 and 1024 to 55517" in done.stderr


def test_failing_part_is_named_with_its_last_words_and_nothing_stays(
    home: Home, tmp_path: Path
) -> None:
    broken = tmp_path / "weed"
    broken.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('the disk is on fire')\n")
    broken.chmod(0o755)
    done = home.run("up", "--port", "0", STELLWERK_WEED=str(broken))
    assert done.returncode == 1
    assert "s3: ended with status 1" in done.stderr
    assert "the disk is on fire" in done.stderr
    assert str(home.path / "logs" / "s3.log") in done.stderr
    assert not others(home)


@pytest.mark.slow
def test_life_of_a_platform(home: Home) -> None:
    # A pipeline ends: the supervisor holds neither the output nor the input of its caller.
    shell = f"{STELLWERK} up --port 0 2>&1 | cat"
    dead = {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple"}
    environment = {**os.environ, "STELLWERK_HOME": str(home.path), **dead}
    started = subprocess.run(
        ["bash", "-c", shell],
        env=environment,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert "Ready in" in started.stdout, started.stdout
    client = json.loads((home.path / "client.json").read_text())
    for text in (
        client["url"],
        client["nats_url"],
        str(home.path / "logs"),
        "stellwerk run submit",
    ):
        assert text in started.stdout
    assert client["token"] not in started.stdout

    status = home.run("status")
    assert status.returncode == 0, status.stdout
    told = home.told()
    assert {row["name"] for row in told["processes"]} == NAMES
    assert {row["state"] for row in told["processes"]} == {"ready"}
    assert told["memory_bytes"] < 900e6
    findings = json.loads(home.run("doctor", "-o", "json").stdout)
    found = {finding["name"]: finding for finding in findings}
    assert found["broker"]["state"] == "ok"
    assert found["broker"]["found"].endswith("sync_interval always")
    index = found["package index"]
    assert "asked with the settings of the running platform: Connection refused" in index["found"]
    assert "This shell has another UV_DEFAULT_INDEX" in index["fix"]
    assert index["state"] == "warning"

    again = home.run("up")
    assert again.returncode == 5
    assert "runs already" in again.stderr
    assert "stellwerk down" in again.stderr

    for name in ("nats", "s3", "scheduler"):
        pid = home.state(name)["pid"]
        os.kill(pid, signal.SIGKILL)
        home.wait(name, pid)
        assert home.state(name)["restarts"] == 1
    restarts = {row["name"]: row["restarts"] for row in home.told()["processes"]}
    assert sum(restarts.values()) == 3, f"a service did not reconnect: {restarts}"

    no_secrets(home, client)
    assert home.run("down").stdout == "Stopped.\n"
    assert not others(home)


def no_secrets(home: Home, client: dict[str, str]) -> None:
    """Neither the logs nor any command line or environment has a secret."""
    secrets = [client["token"], client["nats_password"]]
    secrets += [json.loads((home.path / "secrets" / "s3.json").read_text())["secret_key"]]
    for path in (home.path / "logs").iterdir():
        assert not any(secret in path.read_text(errors="replace") for secret in secrets), path
    for row in home.told()["processes"]:
        process = psutil.Process(row["pid"])
        words = [*process.cmdline(), *process.environ().values()]
        assert not any(secret in word for secret in secrets for word in words), row["name"]


@pytest.mark.slow
def test_killed_supervisor_leaves_nothing_and_the_next_start_goes_on(home: Home) -> None:
    first = home.run("up", "--port", "0")
    assert first.returncode == 0, first.stderr
    client = (home.path / "client.json").read_text()
    os.kill(home.state("supervisor")["pid"], signal.SIGKILL)
    _, alive = psutil.wait_procs(others(home), 10)
    assert not alive, alive
    assert home.run("status").returncode == 1
    second = home.run("up")
    assert second.returncode == 0, second.stderr
    assert (home.path / "client.json").read_text() == client, "same ports, same token"
