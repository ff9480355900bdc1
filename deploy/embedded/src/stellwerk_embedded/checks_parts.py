"""Checks of what the platform is made of: Python, servers, installer, ports, its own files."""

import asyncio
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from stellwerk_embedded import binaries, in_force, ports, state
from stellwerk_embedded.doctor import Check, Finding, judge
from stellwerk_embedded.http_get import request
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.ports import BASE

PYTHON_FLOOR = (3, 11)
LIMIT_S = 10.0


def python(_: Layout) -> Finding:
    """Python's version."""
    found = f"{'.'.join(map(str, sys.version_info[:3]))} in {sys.prefix}"
    return judge("python", found, "3.11 is needed.", ok=sys.version_info >= PYTHON_FLOOR)


def nats_server(_: Layout) -> Finding:
    """The broker's binary and its version."""
    path, version = binaries.NATS.check()
    return Finding("nats server", "ok", f"{version} at {path}")


def object_store(_: Layout) -> Finding:
    """The S3 server's binary and its version."""
    path, version = binaries.WEED.check()
    return Finding("object store", "ok", f"SeaweedFS {version} at {path}")


def broker(layout: Layout) -> Finding:
    """Whether the running broker writes to disk before it acknowledges."""
    content = state.read(layout)
    if content is None:
        return Finding("broker", "ok", "does not run; stellwerk up sets sync_interval: always")
    _, body = asyncio.run(request(content["ports"]["nats-monitor"], "/varz"))
    return _broker(json.loads(body))


def _broker(told: dict[str, Any]) -> Finding:
    store = told.get("jetstream", {}).get("config", {})
    always = bool(store.get("sync_always"))
    version = str(told.get("version", ""))
    found = f"{version}, sync_interval {'always' if always else store.get('sync_interval')}"
    floor = ".".join(map(str, binaries.NATS.floor))
    fix = f"Needed: {floor} or newer, sync_interval always. stellwerk down, then stellwerk up."
    return judge(
        "broker",
        found,
        fix,
        ok=always and binaries.parse(f"v{version} version") >= binaries.NATS.floor,
    )


def installer(_: Layout) -> Finding:
    """uv, and whether this Python can make virtual environments with it."""
    uv = Path(sys.executable).parent / "uv"
    if not uv.exists():
        return Finding("installer", "problem", "uv is not installed", "pip install uv")
    with tempfile.TemporaryDirectory() as folder:
        command = [str(uv), "venv", "--quiet", "--no-project", "--python", sys.executable, folder]
        done = _run([*command, "--allow-existing"])
    said = done.stderr.strip().splitlines()
    version = _run([str(uv), "--version"]).stdout.strip()
    fix = "Install Python's venv module and headers of your system, then try again."
    if done.returncode != 0:
        return Finding("installer", "problem", said[-1] if said else "uv venv failed", fix)
    return Finding("installer", "ok", f"{version}, makes virtual environments")


def package_index(layout: Layout) -> Finding:
    """Whether the package index that builds use answers; environments come from there."""
    settings = in_force.of(layout, "environment-build")
    told = settings.ask("stellwerk_environment_build.index_check")
    whose = ", asked with the settings of the running platform" if settings.running else ""
    if not told["asked"]:
        return Finding("package index", "ok", "none is used (STELLWERK_BUILD_NO_INDEX)")
    if told["answers"]:
        return Finding("package index", "ok", f"answers{whose}")
    fix = (
        "Check the network, a proxy (HTTPS_PROXY) and the index (UV_DEFAULT_INDEX). "
        "Environments that are built already work without it."
    )
    if settings.running and (other := settings.other_than_here()):
        fix += f" This shell has another {', '.join(other)}; stellwerk down, stellwerk up takes it."
    return Finding("package index", "warning", f"gives no package{whose}: {told['said']}", fix)


def port_numbers(layout: Layout) -> Finding:
    """Whether the ports of the next start are free; fine when our own platform holds them."""
    if state.is_held(layout):
        return Finding("ports", "ok", "held by this platform")
    base = ports.remembered(layout.ports_file)["gateway"]
    taken = ports.conflict(base)
    if taken is None:
        return Finding("ports", "ok", f"{base} and those after it are free")
    name, port = taken
    found = f"{port} ({name}) is in use{ports.holder(port)}"
    fix = f"Stop that process, or: stellwerk up --port BASE (default {BASE}; 0 takes free ones)."
    return Finding("ports", "problem", found, fix)


def client_file(layout: Layout) -> Finding:
    """Whether clients on this machine will find the platform, and nobody else its token."""
    path = layout.client_file
    if not path.exists():
        return Finding("client file", "warning", "none yet", "stellwerk up writes it")
    try:
        content = json.loads(path.read_text())
        url = content["url"] if content["token"] else ""
    except (ValueError, KeyError, TypeError):
        url = ""
    again = f"Remove {path}, then stellwerk down and stellwerk up."
    if not url:
        return Finding("client file", "problem", "has no address and token", again)
    private = path.stat().st_mode & 0o077 == 0
    return judge(
        "client file", url if private else "others can read it", f"chmod 600 {path}", ok=private
    )


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


CHECKS: tuple[Check, ...] = (
    python,
    nats_server,
    object_store,
    broker,
    installer,
    package_index,
    port_numbers,
    client_file,
)
