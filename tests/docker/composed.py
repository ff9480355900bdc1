"""The platform of ``docker-compose.yml``, started as a user would, as a project of its own."""

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import images
from docker.models.containers import Container
from docker.models.images import Image
from engine import client
from stack import STELLWERK, TERMINAL, request

from stellwerk_kit.testing.servers import free_port

ROOT = images.ROOT
PORTS = tuple(f"STELLWERK_{name}PORT" for name in ("", "NATS_", "S3_", "REGISTRY_", "PROMETHEUS_"))
STORES = {"minio": images.minio, "seaweedfs": images.seaweedfs, "rustfs": images.rustfs}


HERE = {"user_managed": True, "interpreter": "/opt/stellwerk/bin/python3"}
"""An environment definition that uses the image's own interpreter: nothing to build."""


class Composed:
    """One project. ``url`` and ``token`` are there after :meth:`up`."""

    def __init__(
        self,
        store: str = "minio",
        *,
        containers: bool = False,
        mounts: Path | None = None,
        observed: bool = False,
    ) -> None:
        self.project = f"stellwerk-test-{secrets.token_hex(4)}"
        self.ports = {name: str(free_port()) for name in PORTS}
        self.environment = {
            **os.environ,
            **self.ports,
            "COMPOSE_PROJECT_NAME": self.project,
            "COMPOSE_PROFILES": "",
            "STELLWERK_OBJECT_STORE": store,
            "STELLWERK_IMAGE": images.platform(),
            "STELLWERK_BASE_IMAGE": images.base(),
            "STELLWERK_NATS_IMAGE": images.nats(),
            "STELLWERK_OBJECTS_IMAGE": STORES[store](),
            "STELLWERK_REGISTRY_IMAGE": images.registry(),
            "STELLWERK_CA_FILE": str(images.CA_FILE),
        }
        if containers:
            socket = os.environ.get("DOCKER_HOST", "").removeprefix("unix://")
            path = Path(socket or "/var/run/docker.sock")
            self.environment |= {
                "COMPOSE_FILE": "docker-compose.yml:deploy/docker/containers.yml",
                "STELLWERK_DOCKER_GID": str(path.stat().st_gid),
                "STELLWERK_DOCKER_SOCKET": str(path),
            }
        if observed:
            self.environment["COMPOSE_PROFILES"] = "observability"
            self.environment["STELLWERK_PROMETHEUS_IMAGE"] = images.prometheus()
        if mounts is not None:
            self.environment["COMPOSE_FILE"] += ":deploy/docker/mounts.yml"
            self.environment["STELLWERK_EXECUTORS_DIR"] = str(mounts)
        self.url = f"http://127.0.0.1:{self.ports['STELLWERK_PORT']}"
        self.token = ""
        self.engine = client()

    def compose(self, *words: str, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        """``docker compose …`` at the root of the repository."""
        return subprocess.run(
            [*_compose(), *words],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def up(self) -> None:
        """Start and wait until everything is healthy."""
        done = self.compose("up", "--wait", "--no-build")
        assert done.returncode == 0, done.stderr[-3000:] + self.logs()
        self.token = self.script("token").stdout.strip()
        assert self.token

    def script(self, name: str) -> subprocess.CompletedProcess[str]:
        """One of the scripts in ``deploy/docker``."""
        return subprocess.run(
            [ROOT / "deploy/docker" / name], env=self.environment, capture_output=True, text=True, check=True
        )  # fmt: skip

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """``stellwerk …`` as a user would, against this platform."""
        known = {"STELLWERK_URL": self.url, "STELLWERK_TOKEN": self.token}
        return subprocess.run(
            [STELLWERK, *words], env={**self.environment, **known}, capture_output=True, text=True,
            timeout=300, check=False,
        )  # fmt: skip

    def down(self) -> None:
        """Stop and forget everything."""
        done = self.compose("down", "--volumes", "--remove-orphans", "--timeout", "10")
        assert done.returncode == 0, done.stderr[-3000:]

    def logs(self) -> str:
        """The end of every container's log."""
        return self.compose("logs", "--no-color", "--tail", "20").stdout[-8000:]

    def containers(self) -> dict[str, Container]:
        """Containers by service, ended ones too."""
        label = f"com.docker.compose.project={self.project}"
        found = self.engine.containers.list(all=True, filters={"label": label}, ignore_removed=True)
        return {each.labels["com.docker.compose.service"]: each for each in found}

    def runs(self) -> list[Container]:
        """Containers of runs, ended ones too; those of other projects as well."""
        return self.engine.containers.list(
            all=True, filters={"label": "stellwerk.run"}, ignore_removed=True
        )

    def environment_images(self) -> list[Image]:
        """Images of environments that this project has made or pulled."""
        registry = f"127.0.0.1:{self.ports['STELLWERK_REGISTRY_PORT']}"
        return self.engine.images.list(name=f"{registry}/stellwerk/environment")

    def forget_images(self) -> None:
        """Take them away from this node; those that were pushed are in the registry."""
        for image in self.environment_images():
            self.engine.images.remove(image.id, force=True)

    def left(self) -> list[Any]:
        """What of this project the engine still has."""
        label = {"label": f"com.docker.compose.project={self.project}"}
        return [
            *self.engine.containers.list(all=True, filters=label, ignore_removed=True),
            *self.engine.volumes.list(filters=label),
            *self.engine.networks.list(filters=label),
        ]

    def http(self) -> httpx2.Client:
        """A client of the REST API."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx2.Client(
            base_url=self.url, headers=headers, follow_redirects=True, trust_env=False, timeout=30
        )

    def kill(self, service: str) -> None:
        """kill -9, as a crash would: the engine's own ``kill`` would not start it again."""
        container = self.containers()[service]
        os.kill(container.attrs["State"]["Pid"], signal.SIGKILL)

    def wait_healthy(self, deadline_s: float = 90) -> None:
        """Wait until every long-running container is healthy."""
        end = time.monotonic() + deadline_s
        while True:
            states = {
                name: each.attrs["State"].get("Health", {}).get("Status", "none")
                for name, each in self.containers().items()
                if name not in {"init", "topology"}
            }
            if set(states.values()) == {"healthy"}:
                return
            assert time.monotonic() < end, json.dumps(states) + self.logs()
            time.sleep(0.3)


@contextmanager
def started(composed: Composed) -> Iterator[Composed]:
    """The platform while it is up. Afterwards the engine has nothing of it, nor any run."""
    try:
        composed.up()
        yield composed
    finally:
        composed.down()
        composed.forget_images()
    assert composed.left() == []
    assert composed.runs() == []


def body(script: str, environment: dict[str, Any] = HERE) -> dict[str, Any]:
    """Body of ``POST /runs`` for one inline script."""
    source = {"inline": {"main.py": script}}
    spec = {"source": source, "script": "main.py", "environment": environment}
    return {"experiment": "composed", "spec": spec}


def reads(dataset: str, script: str, environment: dict[str, Any] = HERE) -> dict[str, Any]:
    """Body of a run that has ``dataset`` as a lazy mount, if its node can; its path is argv[1]."""
    made = body(script, environment)
    made["spec"] |= {
        "arguments": [{"input": "data"}],
        "inputs": {"data": {"dataset": dataset, "mode": "mount", "lazy": True}},
    }
    return made


def register(platform: "Composed", folder: Path, name: str, size: int) -> bytes:
    """A dataset of one file, ``big``; returns its bytes."""
    content = os.urandom(size)
    (folder / "big").write_bytes(content)
    done = platform.command("dataset", "register", name, str(folder / "big"))
    assert done.returncode == 0, done.stdout + done.stderr
    return content


def prepared(platform: "Composed", run: str) -> str:
    """What the node says of a run's inputs."""
    with platform.http() as http:
        return request("GET", http, f"/runs/{run}/logs/azureml-logs/65_job_prep.txt").text


def lines(count: int) -> str:
    """A script that prints ten lines a second."""
    return (
        "import time\n"
        f"for number in range({count}):\n"
        "    print(f'line {number}', flush=True)\n"
        "    time.sleep(0.1)\n"
    )


def until_running(platform: Composed, run: str) -> None:
    """Wait until the run's program is there."""
    end = time.monotonic() + 120
    with platform.http() as http:
        while True:
            status = request("GET", http, f"/runs/{run}").json().get("status")
            if status == "Running":
                return
            assert status not in TERMINAL, status
            assert time.monotonic() < end, status
            time.sleep(0.1)


def demo(platform: Composed) -> None:
    """``make demo STELLWERK_URL=…``: Keras on MNIST, as the README says."""
    done = subprocess.run(
        ["make", "-s", "demo", f"STELLWERK_URL={platform.url}"],
        cwd=ROOT,
        env=platform.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:] + platform.logs()
    assert "demo: Completed" in done.stdout


def _compose() -> list[str]:
    """The engine's plugin where there is one, else the wheel's."""
    plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
    if plugin.returncode == 0:
        return ["docker", "compose"]
    return [str(Path(sys.executable).parent / "docker-compose")]
