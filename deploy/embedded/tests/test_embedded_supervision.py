"""Supervision of processes: restart, ports, refusals; with small stand-ins for the services."""

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

import psutil
import pytest

from stellwerk_embedded import ports
from stellwerk_embedded.probes import is_ready
from stellwerk_embedded.processes import ProcessSpec
from stellwerk_embedded.supervisor import Watched
from stellwerk_kit.testing import free_port, wait_until

SERVER = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""


def spec(folder: Path, program: str, port: int) -> ProcessSpec:
    command = (sys.executable, "-c", program, str(port))
    return ProcessSpec("part", command, dict(os.environ), folder, f"http:{port}", port)


async def test_killed_process_is_started_again(tmp_path: Path) -> None:
    watched, changed = (
        Watched(spec(tmp_path, SERVER, free_port()), tmp_path / "part.log"),
        asyncio.Event(),
    )
    task = asyncio.ensure_future(watched.run(changed))
    await asyncio.wait_for(watched.ready.wait(), 20)
    first = watched.describe()["pid"]
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: watched.describe()["pid"] not in {None, first}, 20)
    await asyncio.wait_for(watched.ready.wait(), 20)
    assert watched.describe()["restarts"] == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watched.stop()
    assert not psutil.pid_exists(watched.process.pid)


async def test_process_that_always_fails_says_so_and_is_tried_ever_more_slowly(
    tmp_path: Path,
) -> None:
    watched = Watched(spec(tmp_path, "raise SystemExit('no luck')", 1), tmp_path / "part.log")
    task = asyncio.ensure_future(watched.run(asyncio.Event()))
    await wait_until(lambda: watched.restarts >= 3, 20)
    assert "status 1" in watched.message
    assert "no luck" in (tmp_path / "part.log").read_text()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_stop_waits_for_an_orderly_end(tmp_path: Path) -> None:
    marker = tmp_path / "ended"
    program = f"import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *a: (open({str(marker)!r}, 'w').close(), sys.exit(0)))\nopen({str(tmp_path / 'up')!r}, 'w').close()\ntime.sleep(600)"
    watched = Watched(spec(tmp_path, program, 1), tmp_path / "part.log")
    task = asyncio.ensure_future(watched.run(asyncio.Event()))
    await wait_until((tmp_path / "up").exists, 20)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await watched.stop()
    assert marker.exists()


def test_port_in_use_is_named_with_what_to_do() -> None:
    base = free_port()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", base))
        taken.listen()
        with pytest.raises(
            ports.PortInUseError, match=rf"port {base} \(gateway\) is in use.*--port"
        ):
            ports.assign(base)


def test_free_ports_are_all_different() -> None:
    found = ports.assign(0)
    assert set(found) == set(ports.NAMES)
    assert len(set(found.values())) == len(found)


async def test_probe_of_a_silent_port_is_not_ready() -> None:
    assert not await is_ready(f"http:{free_port()}")
    assert not await is_ready(f"tcp:{free_port()}")
