"""Supervision of processes, with small stand-ins for the services."""

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from stellwerk_embedded import child as child_module
from stellwerk_embedded import lifecycle, logfile, state
from stellwerk_embedded.child import Child
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.probes import HttpProbe, problem
from stellwerk_embedded.processes import ProcessSpec
from stellwerk_kit.testing import free_port, wait_until

SERVER = """
import http.server, sys
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Page).serve_forever()
"""
ORDERLY = """
import signal, sys, time
def end(*_):
    open(sys.argv[1], "a").write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
time.sleep(600)
"""
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(helper.pid, flush=True)
time.sleep(600)
"""
SUPERVISOR = """
import asyncio, os, sys
from pathlib import Path
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.probes import HttpProbe
from stellwerk_embedded.processes import ProcessSpec
from stellwerk_embedded.supervisor import Report, Supervisor
home, server, port = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
def spec(name, program, probe, *more, after=()):
    command = (sys.executable, "-c", program, *more)
    return ProcessSpec(name, command, dict(os.environ), home, probe, port if probe else 0, after)
specs = [
    spec("part", server, HttpProbe(port), str(port)),
    spec("job", "print('made')", None, after=("part",)),
    spec("late", server, HttpProbe(port + 1), str(port + 1), after=("part", "job")),
]
async def main():
    return await Supervisor(Layout(home), {}, specs).run(Report(os.fdopen(1, "w")))
sys.exit(asyncio.run(main()))
"""


class Nursery:
    """Children under supervision, ended as the supervisor ends them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._keepers: dict[Child, asyncio.Task[None]] = {}

    def __call__(
        self, program: str, *arguments: str, port: int | None = None, stop_s: float = 10
    ) -> Child:
        command = (sys.executable, "-c", program, *arguments)
        probe = HttpProbe(port if port is not None else free_port())
        spec = ProcessSpec("part", command, dict(os.environ), self._folder, probe, stop_s=stop_s)
        made = Child(spec, self._folder / "part.log", lambda: None)
        self._keepers[made] = asyncio.ensure_future(made.keep())
        return made

    async def end(self, part: Child) -> None:
        keeper = self._keepers.pop(part)
        keeper.cancel()
        await asyncio.gather(keeper, return_exceptions=True)
        await part.stop()

    async def end_all(self) -> None:
        for part in list(self._keepers):
            await self.end(part)


@pytest_asyncio.fixture
async def make(tmp_path: Path) -> AsyncIterator[Nursery]:
    nursery = Nursery(tmp_path)
    yield nursery
    await nursery.end_all()


def log_of(tmp_path: Path) -> str:
    path = tmp_path / "part.log"
    return path.read_text() if path.exists() else ""


async def test_killed_process_is_started_again_at_once(make: Nursery) -> None:
    port = free_port()
    part = make(SERVER, str(port), port=port)
    await asyncio.wait_for(part.ready.wait(), 20)
    first = part.describe()["pid"]
    os.kill(first, signal.SIGKILL)
    await wait_until(lambda: part.state == "restarting", 10)
    assert part.message == "was ended by SIGKILL"
    await asyncio.wait_for(part.ready.wait(), 20)
    assert part.describe() | {"pid": 0} == {
        "pid": 0, "port": None, "state": "ready", "restarts": 1, "message": "",
    }  # fmt: skip
    assert part.describe()["pid"] != first


async def test_crash_loop_is_reported_and_slowed_down(
    make: Nursery, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_module, "BACKOFF_S", (0.01, 0.01))
    monkeypatch.setattr(child_module, "CRASH_LIMIT", 2)
    part = make("raise SystemExit('no luck')")
    await wait_until(lambda: part.state == "failing", 20)
    assert part.message == "ended with status 1, 3 times in a row"
    assert part.restarts == 2
    assert log_of(tmp_path).count("no luck") == 3


async def test_failures_before_a_steady_time_are_forgotten(
    make: Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Someone who kills a part now and then makes no crash loop."""
    monkeypatch.setattr(child_module, "STEADY_S", 0.0)
    monkeypatch.setattr(child_module, "CRASH_LIMIT", 1)
    port = free_port()
    part = make(SERVER, str(port), port=port)
    for _ in range(3):
        await asyncio.wait_for(part.ready.wait(), 20)
        os.kill(part.describe()["pid"], signal.SIGKILL)
        await wait_until(lambda: not part.ready.is_set(), 10)
    await asyncio.wait_for(part.ready.wait(), 20)
    assert not part.crash_looping


async def test_program_that_is_not_there_is_reported(tmp_path: Path) -> None:
    spec = ProcessSpec("part", ("/nowhere/program",), {}, tmp_path, HttpProbe(1))
    part = Child(spec, tmp_path / "part.log", lambda: None)
    task = asyncio.ensure_future(part.keep())
    await wait_until(lambda: part.state == "restarting", 10)
    assert part.message == "cannot be started: No such file or directory"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_stop_waits_for_an_orderly_end(make: Nursery, tmp_path: Path) -> None:
    part = make(ORDERLY, str(tmp_path / "ended"), "part")
    await wait_until(lambda: "up" in log_of(tmp_path), 20)
    await make.end(part)
    assert (tmp_path / "ended").read_text() == "part\n"
    assert (part.state, part.message) == ("stopped", "")


async def test_who_does_not_end_is_killed_with_its_helpers(make: Nursery, tmp_path: Path) -> None:
    part = make(STUBBORN, stop_s=0.2)
    helper = int(await wait_until(lambda: log_of(tmp_path).strip(), 20))
    pid = part.describe()["pid"]
    await make.end(part)
    assert part.message == "did not end within 0.2 s and was killed"
    assert not psutil.pid_exists(pid)
    await wait_until(lambda: gone(helper), 10)


def gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def start_supervisor(tmp_path: Path) -> tuple[subprocess.Popen[str], Layout]:
    layout, port = Layout(tmp_path), free_port()
    layout.create()
    program = [sys.executable, "-c", SUPERVISOR, str(tmp_path), SERVER, str(port)]
    return subprocess.Popen(program, stdout=subprocess.PIPE, text=True), layout


def pids(layout: Layout) -> list[int]:
    told = json.loads(layout.state_file.read_text())["processes"]
    return [entry["pid"] for entry in told.values() if entry["pid"]]


async def test_order_of_start_and_end_and_what_is_told(tmp_path: Path) -> None:
    supervisor, layout = start_supervisor(tmp_path)
    assert supervisor.stdout is not None
    told = [json.loads(line) for line in supervisor.stdout]  # ends when all is ready
    assert [line.get("ready", "end") for line in told] == ["part", "job", "late", "end"]
    assert told[-1] == {"failure": None}
    await wait_until(lambda: len(pids(layout)) == 2, 10)
    before = pids(layout)
    supervisor.terminate()
    assert supervisor.wait(20) == 0
    supervisor.stdout.close()
    assert all(gone(pid) for pid in before)
    assert not layout.state_file.exists()


async def test_nothing_outlives_a_killed_supervisor(tmp_path: Path) -> None:
    supervisor, layout = start_supervisor(tmp_path)
    assert supervisor.stdout is not None
    supervisor.stdout.read()
    children = await wait_until(lambda: len(pids(layout)) == 2 and pids(layout), 10)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()
    await wait_until(lambda: all(gone(pid) for pid in children), 10)


def test_lock_belongs_to_one(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    assert not state.is_held(layout)
    lock = state.take_lock(layout)
    assert lock is not None
    assert state.is_held(layout)
    assert state.take_lock(layout) is None
    os.close(lock)
    assert not state.is_held(layout)
    assert lifecycle.stop(layout) is False


async def test_full_log_is_set_aside_while_its_writer_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "part.log"
    with logfile.open_log(path) as log:
        log.write(b"first\n" * 10)
        assert logfile.rotate(path, limit=50)
        log.write(b"second\n")
        assert not logfile.rotate(path, limit=50)
        log.write(b"third\n" * 10)
        assert logfile.rotate(path, limit=50)
    assert path.read_bytes() == b""
    assert (tmp_path / "part.log.1").read_bytes() == b"second\n" + b"third\n" * 10
    assert (tmp_path / "part.log.2").read_bytes() == b"first\n" * 10
    assert path.stat().st_mode & 0o077 == 0


async def test_probe_says_why_a_part_is_not_ready() -> None:
    assert await problem(HttpProbe(free_port())) == "nothing listens on its port yet"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.0 503 Service Unavailable\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await problem(HttpProbe(port)) == "/readyz answers 503"

    async def silence(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silence, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        assert await problem(HttpProbe(port), 0.1) == "no answer within 0.1 s"
