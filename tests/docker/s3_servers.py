"""Other real S3 servers as processes, and a proxy that misbehaves in front of any server."""

import contextlib
import os
import socket
import threading
import time
from pathlib import Path
from typing import Self

import images

from stellwerk_kit.testing.servers import S3Server, free_port

PIECE = 1024


class MinioServer(S3Server):
    """MinIO in the place of SeaweedFS: same address, keys and ends."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = free_port()
        self.endpoint = f"127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        """The command line."""
        where = ["--address", self.endpoint, "--console-address", f"127.0.0.1:{free_port()}"]
        return [str(images.minio_binary()), "server", str(self.folder / "data"), *where]

    def environment(self) -> dict[str, str]:
        """Its keys, and nothing reported out."""
        (self.folder / "data").mkdir(exist_ok=True)
        keys = {"MINIO_ROOT_USER": "test", "MINIO_ROOT_PASSWORD": "test-secret"}
        return {**os.environ, **keys, "MINIO_BROWSER": "off", "MINIO_UPDATE": "off"}


class RustfsServer(MinioServer):
    """RustFS, from a program that somebody has built: ``$STELLWERK_TEST_RUSTFS`` is its path."""

    def command(self) -> list[str]:
        """The command line, as compose has it."""
        program = os.environ["STELLWERK_TEST_RUSTFS"]
        return [program, "--address", self.endpoint, str(self.folder / "data")]

    def environment(self) -> dict[str, str]:
        """Its keys; no console."""
        (self.folder / "data").mkdir(exist_ok=True)
        keys = {"RUSTFS_ACCESS_KEY": "test", "RUSTFS_SECRET_KEY": "test-secret"}
        return {**os.environ, **keys, "RUSTFS_CONSOLE_ENABLE": "false"}


class Proxy:
    """Passes bytes on; ``rate`` slows them (bytes a second), ``cut_up``/``cut_down`` break
    a connection after so many bytes to or from the server, ``cuts`` times."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.partition(":")
        self._target = (host, int(port))
        self.rate: float | None = None
        self.cut_up: int | None = None
        self.cut_down: int | None = None
        self.cuts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.endpoint = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._target)
            except OSError:
                return
            pair = (client, server)
            for source, sink, up in ((client, server, True), (server, client, False)):
                threading.Thread(
                    target=self._pump, args=(source, sink, up, pair), daemon=True
                ).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, up: bool, pair: tuple[socket.socket, ...]
    ) -> None:
        passed = 0
        with contextlib.suppress(OSError):
            while data := source.recv(PIECE if self.rate else 64 * PIECE):
                passed += len(data)
                limit = self.cut_up if up else self.cut_down
                if limit is not None and passed > limit and self._take_cut():
                    break
                sink.sendall(data)
                if self.rate:
                    time.sleep(len(data) / self.rate)
        for each in pair:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _take_cut(self) -> bool:
        with self._lock:
            self.cuts -= 1
            return self.cuts >= 0
