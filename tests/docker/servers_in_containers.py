"""NATS, MinIO and a registry as containers of testcontainers, on loopback, from local images."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Its helper container is not to be had offline, and what we start we end; inside a container it
# would look for published ports at the bridge.
os.environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
os.environ["TESTCONTAINERS_CONNECTION_MODE"] = "docker_host"

import images
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

from stellwerk_kit.testing.servers import free_port

USER, PASSWORD = "test", "test-secret"
LOGIN = {"username": "u", "password": "right-one"}
HTPASSWD = "u:$2b$04$abcdefghijklmnopqrstuuDamSpEBK/aHXBMNOuT7tjZRd3dlURqO\n"


@contextmanager
def nats() -> Iterator[str]:
    """A broker with JetStream; gives its URL."""
    port, monitor = free_port(), free_port()
    container = _container(images.nats(), {4222: port, 8222: monitor}, "/data")
    container.with_command("nats-server --jetstream --store_dir /data --http_port 8222")
    with container.waiting_for(HttpWaitStrategy(8222, "/healthz")):
        yield f"nats://127.0.0.1:{port}"


@contextmanager
def minio() -> Iterator[str]:
    """An object store; gives ``host:port``. Its keys are USER and PASSWORD."""
    port = free_port()
    container = _container(images.minio(), {9000: port}, "/data").with_command("server /data")
    container.with_envs(MINIO_ROOT_USER=USER, MINIO_ROOT_PASSWORD=PASSWORD, MINIO_UPDATE="off")
    with container.waiting_for(HttpWaitStrategy(9000, "/minio/health/ready")):
        yield f"127.0.0.1:{port}"


@contextmanager
def registry(users: Path | None = None) -> Iterator[str]:
    """A registry; gives ``host:port``. With ``users``, a folder for the file, it wants a LOGIN."""
    port = free_port()
    container = _container(images.registry(), {5000: port}, "/var/lib/registry")
    if users is not None:
        (users / "htpasswd").write_text(HTPASSWD)
        container.with_volume_mapping(str(users), "/users", "ro").with_envs(
            REGISTRY_AUTH="htpasswd",
            REGISTRY_AUTH_HTPASSWD_REALM="test",
            REGISTRY_AUTH_HTPASSWD_PATH="/users/htpasswd",
        )
    with container.waiting_for(HttpWaitStrategy(5000, "/")):
        yield f"127.0.0.1:{port}"


def _container(image: str, ports: dict[int, int], data: str) -> DockerContainer:
    container = DockerContainer(image).with_kwargs(init=True).with_tmpfs_mount(data)
    for inside, outside in ports.items():
        container.ports[inside] = ("127.0.0.1", outside)
    return container
