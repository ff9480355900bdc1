"""Which port each part listens on: fixed offsets from one base, or free ports."""

import contextlib
import socket
from pathlib import Path

import psutil

from stellwerk_embedded.layout import SERVICES

BASE = 8470
NAMES = (
    "gateway",
    "nats",
    "nats-monitor",
    "s3",
    "s3-grpc",
    "s3-master",
    "s3-master-grpc",
    "s3-volume",
    "s3-volume-grpc",
    "s3-filer",
    "s3-filer-grpc",
    "s3-admin",
    *(f"{name}-operations" for name in SERVICES),
)
"""In the order of their offsets from the base port."""
LAST_BASE = 65535 - len(NAMES) + 1


class PortInUseError(Exception):
    """A port is taken; the text names it, who holds it and what to do."""


def assign(base: int) -> dict[str, int]:
    """Name → port; base 0 takes free ones. Raises PortInUseError."""
    if base == 0:
        return _free_ports()
    ports = {name: base + offset for offset, name in enumerate(NAMES)}
    for name, port in ports.items():
        if not available(port):
            raise PortInUseError(
                f"port {port} ({name}) is in use{holder(port)}; stop that process, or choose other "
                "ports: stellwerk up --port BASE (0 takes free ones)"
            )
    return ports


def available(port: int) -> bool:
    """Whether nobody listens on a loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """`` by NAME (process N)`` if the system tells, else nothing."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                name = Path(psutil.Process(connection.pid).name()).name
                return f" by {name} (process {connection.pid})"
    return ""


def _free_ports() -> dict[str, int]:
    with contextlib.ExitStack() as stack:
        sockets = {}
        for name in NAMES:
            probe = stack.enter_context(socket.socket())
            probe.bind(("127.0.0.1", 0))
            sockets[name] = probe
        return {name: probe.getsockname()[1] for name, probe in sockets.items()}
