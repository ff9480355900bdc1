"""Real servers on free loopback ports: the wheel's nats-server and SeaweedFS's S3."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Self

READY_S = 30.0
S3_PORTS = (
    "s3.port",
    "s3.port.grpc",
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "admin.port",
)


def free_port() -> int:
    """A loopback port nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def binary(name: str) -> str:
    """A server binary of this virtual environment, never one that happens to be on PATH."""
    beside = Path(sys.executable).parent / name
    if beside.exists():
        return str(beside)
    raise FileNotFoundError(f"{name} is not installed in this environment; run: make setup")


class Server:
    """One process with a log file in ``folder``; kill -9 and start again at will."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def command(self) -> list[str]:
        """The command line."""
        raise NotImplementedError

    def ready(self) -> bool:
        """Whether it answers."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Its environment variables."""
        return dict(os.environ)

    def options(self) -> dict[str, Any]:
        """Further options of its process."""
        return {}

    def start(self) -> Self:
        """Start and wait until it answers."""
        with (self.folder / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
                **self.options(),
            )
        deadline = time.monotonic() + READY_S
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > deadline:
                tail = (self.folder / f"{self.name}.log").read_text(errors="replace")[-2000:]
                self.stop()
                raise RuntimeError(f"{self.name} did not start:\n{tail}")
            time.sleep(0.01)
        return self

    def kill(self) -> None:
        """SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after five seconds."""
        self._end(signal.SIGTERM)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self.process = None


class NatsServer(Server):
    """nats-server with JetStream and ``sync_interval: always``."""

    def __init__(self, folder: Path, *, sync: str = "always", extra: str = "") -> None:
        super().__init__(folder, "nats-server")
        self.port = free_port()
        self.url = f"nats://127.0.0.1:{self.port}"
        (folder / "nats.conf").write_text(
            f'listen: "127.0.0.1:{self.port}"\nmax_payload: 8MB\n'
            f'jetstream {{ store_dir: "{folder / "js"}", sync_interval: {sync}, '
            f"max_file_store: 20GB }}\n{extra}\n"
        )

    def command(self) -> list[str]:
        """The command line."""
        return [binary("nats-server"), "-c", str(self.folder / "nats.conf")]

    def ready(self) -> bool:
        """Whether it greets a client."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), 0.2) as connection:
                return connection.recv(4) == b"INFO"
        except OSError:
            return False


class S3Server(Server):
    """SeaweedFS with one identity; ``credentials`` is the JSON file services read."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, "weed")
        self.ports = {name: free_port() for name in S3_PORTS}
        self.endpoint = f"127.0.0.1:{self.ports['s3.port']}"
        self.credentials = folder / "s3-credentials.json"
        self.credentials.write_text(json.dumps({"access_key": "test", "secret_key": "test-secret"}))
        identity = {
            "name": "test",
            "credentials": [{"accessKey": "test", "secretKey": "test-secret"}],
        }
        identity["actions"] = ["Admin", "Read", "Write", "List", "Tagging"]
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))

    def command(self) -> list[str]:
        """The command line."""
        options = {
            "dir": self.folder / "data",
            "ip": "127.0.0.1",
            "ip.bind": "127.0.0.1",
            **self.ports,
            "master.telemetry": "false",
            # Each test has a bucket, each bucket volumes of its own: small ones, or the disk's
            # share of them is used up within a few hundred tests.
            "master.volumeSizeLimitMB": 32,
            "webdav": "false",
            "admin.ui": "false",
            "s3.port.iceberg": 0,
            "s3.port.lance": 0,
            "s3.config": self.folder / "s3.json",
        }
        arguments = [f"-{name}={value}" for name, value in options.items()]
        return [binary("weed"), "-logtostderr=true", "mini", *arguments]

    def environment(self) -> dict[str, str]:
        """Bounded memory."""
        (self.folder / "data").mkdir(exist_ok=True)
        return {**os.environ, "GOMEMLIMIT": "256MiB"}

    def ready(self) -> bool:
        """Whether a bucket can be listed."""
        import urllib3  # noqa: PLC0415
        from minio import Minio  # noqa: PLC0415 - only tests with a store pay this import
        from minio.error import MinioException  # noqa: PLC0415

        pool = urllib3.PoolManager(timeout=1.0, retries=False)
        client = Minio(
            self.endpoint, "test", "test-secret", secure=False, region="us-east-1", http_client=pool
        )
        try:
            client.list_buckets()
            if not client.bucket_exists("ready-probe"):
                client.make_bucket("ready-probe")
        except (MinioException, urllib3.exceptions.HTTPError, OSError):
            return False
        return True

    def remove(self) -> None:
        """Stop and delete all data."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)
