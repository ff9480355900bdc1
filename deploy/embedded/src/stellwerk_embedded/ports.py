"""Which port each part listens on: fixed offsets from one base port.

The base is 8470 unless ``--port`` says otherwise; ``--port 0`` looks for a free range once and
remembers it in the data folder, so that addresses survive a restart.
"""

import contextlib
import json
import os
import socket
from pathlib import Path

from stellwerk.errors import ConflictError
from stellwerk_embedded.layout import SERVICES, write_private

BASE = 8470
ADMIN_GRPC = 10_018
"""The object store's own worker looks for its administration 10000 above that one's port."""
HIGHEST_BASE = 65_535 - ADMIN_GRPC
LOWEST_BASE = 1024
OFFSETS = {
    "gateway": 0,
    "nats": 1,
    "nats-monitor": 2,
    "s3": 10,
    "s3-grpc": 11,
    "s3-master": 12,
    "s3-master-grpc": 13,
    "s3-volume": 14,
    "s3-volume-grpc": 15,
    "s3-filer": 16,
    "s3-filer-grpc": 17,
    "s3-admin": 18,
    **{f"{name}-operations": 20 + index for index, name in enumerate(SERVICES)},
    "s3-admin-grpc": ADMIN_GRPC,
}
# Below the range the kernel takes ports of outgoing connections from.
FREE_FROM, FREE_TO, STEP = 10_240, 22_000, 40


class PortInUseError(ConflictError):
    """A port is taken; the text names it, who holds it and what to do."""

    code = "port.in_use"


def choose(path: Path, wanted: int | None) -> dict[str, int]:
    """Ports for this start, by name; ``path`` is the file that remembers the choice.

    ``wanted``: a base port, 0 for any free one, None for the last choice or else the default.
    Raises PortInUseError.
    """
    last, free = _last(path)
    if wanted or (wanted is None and not free):
        base = wanted or last or BASE
        ports, free = assign(base), False
    else:
        base, free = last if free and not conflict(last) else _free_base(), True
        ports = assign(base)
    write_private(path, json.dumps({"base": base, "free": free}))
    return ports


def assign(base: int) -> dict[str, int]:
    """Name → port. Raises PortInUseError, naming the first port that is taken."""
    taken = conflict(base)
    if taken:
        name, port = taken
        raise PortInUseError(
            f"port {port} ({name}) is in use{holder(port)}. Stop that process, or choose other "
            "ports: stellwerk up --port BASE (0 takes free ones)",
            field="port",
        )
    return _of(base)


def remembered(path: Path) -> dict[str, int]:
    """The ports of the last choice, whether they are free or not."""
    base, _ = _last(path)
    return _of(base or BASE)


def conflict(base: int) -> tuple[str, int] | None:
    """The first part whose port is taken, with that port."""
    for name, offset in OFFSETS.items():
        if not available(base + offset):
            return name, base + offset
    return None


def available(port: int) -> bool:
    """Whether a server could listen on a loopback port right now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def holder(port: int) -> str:
    """`` by NAME (process N)`` if the system tells, else nothing."""
    import psutil  # noqa: PLC0415 - only where something is wrong

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            where = connection.laddr
            if listens and where and where.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""


def _of(base: int) -> dict[str, int]:
    return {name: base + offset for name, offset in OFFSETS.items()}


def _last(path: Path) -> tuple[int, bool]:
    try:
        content = json.loads(path.read_text())
        return int(content["base"]), bool(content["free"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0, False


def _free_base() -> int:
    """A base whose ports are all free; each process begins its search elsewhere."""
    count = (FREE_TO - FREE_FROM) // STEP
    for number in range(count):
        base = FREE_FROM + (os.getpid() + number) % count * STEP
        if conflict(base) is None:
            return base
    raise PortInUseError(
        f"no {STEP} free ports in a row between {FREE_FROM} and {FREE_TO}; name some: "
        "stellwerk up --port BASE",
        field="port",
    )
