"""Records through the real supervisor: every line arrives, once and whole, whatever happens."""

import asyncio
import json
import os
import signal
from pathlib import Path
from typing import Any

from real_attempts import launcher, log_holds, read, request


async def records_of(
    folder: Path, script: str, **options: object
) -> tuple[list[dict[str, Any]], bytes]:
    async with launcher(folder) as service:
        handle = await service.start(request(folder / "a1", script, **options))
        record = await handle.wait()
        data = read(handle.attempt.records)
        assert len(data) == record.records_bytes
        return [json.loads(line) for line in data.splitlines()], read(handle.attempt.log)


FORKS = """
import os
from stellwerk_agent import Run
run = Run.get_context()
run.log('parent', 1)
children = []
for number in range(4):
    child = os.fork()
    if child == 0:
        for step in range(2000):
            run.log('child%d' % number, step * 0.5, step=step)
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0] * 4
"""


async def test_four_processes(tmp_path: Path) -> None:
    records, log = await records_of(tmp_path, FORKS)
    assert log == b""
    for number in range(4):
        values = [r["v"] for r in records if r["n"] == f"child{number}"]
        assert values == [step * 0.5 for step in range(2000)]
    assert len(records) == 8001


async def test_killed_right_after_logging(tmp_path: Path) -> None:
    script = (
        "import os\nfrom stellwerk_agent import Run\nrun = Run.get_context()\n"
        "for n in range(500): run.log('n', n)\nos.kill(os.getpid(), 9)"
    )
    records, _ = await records_of(tmp_path, script)
    assert [r["v"] for r in records] == list(range(500))


PAUSES_ITS_SUPERVISOR = """
import os, signal
from stellwerk_agent import Run
run = Run.get_context()
print('ready')
open('gate').read()
os.kill(os.getppid(), signal.SIGSTOP)
for n in range(50): run.log('n', n)
print('last words')
"""


async def test_nothing_is_lost_when_the_supervisor_sees_the_end_first(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        start = request(tmp_path / "a1", PAUSES_ITS_SUPERVISOR)
        os.mkfifo(start.cwd / "gate")
        handle = await service.start(start)
        await log_holds(handle, b"ready\n")
        shim = handle.attempt.read_shim()
        assert shim is not None
        child = os.pidfd_open(shim.child_pid)
        (start.cwd / "gate").write_text("")
        ended, loop = asyncio.Event(), asyncio.get_running_loop()
        loop.add_reader(child, ended.set)
        await ended.wait()
        loop.remove_reader(child)
        os.close(child)
        os.kill(shim.pid, signal.SIGCONT)
        await handle.wait()
    records = [json.loads(line) for line in read(handle.attempt.records).splitlines()]
    assert [r["v"] for r in records] == list(range(50))
    assert read(handle.attempt.log) == b"ready\nlast words\n"


async def test_upload_lands_in_the_attempt_folder(tmp_path: Path) -> None:
    script = (
        "import io\nfrom stellwerk_agent import Run\n"
        "Run.get_context().upload_file('outputs/a.bin', io.BytesIO(b'abc'))"
    )
    records, log = await records_of(tmp_path, script)
    assert [(r["k"], r["p"]) for r in records] == [("file", "outputs/a.bin")], log
    assert (tmp_path / "a1" / "uploads" / "outputs" / "a.bin").read_bytes() == b"abc"


HOSTILE = """
import os, socket
def connect():
    s = socket.socket(socket.AF_UNIX)
    s.connect(os.environ['STELLWERK_RUN_SOCKET'])
    return s
s = connect()
s.sendall(b'not json\\n{"k":"a"}\\n' + b'{"k":"' + b'x' * 300_000 + b'"}\\n{"k":"b"}\\n')
s.sendall(b'y' * 700_000); s.sendall(b'\\n{"k":"c"}\\n{"k":"unfinished"')
s.close()
crowd = [connect() for _ in range(400)]
for n, s in enumerate(crowd): s.sendall(b'{"k":"crowd","v":%d}\\n' % n); s.close()
"""


async def test_hostile_writers(tmp_path: Path) -> None:
    records, log = await records_of(tmp_path, HOSTILE)
    assert log == b""
    assert [r["k"] for r in records if r["k"] in "abc"] == ["a", "b", "c"]
    assert sorted(r["v"] for r in records if r["k"] == "crowd") == list(range(400))
    dropped = [r for r in records if r["k"] == "dropped"]
    assert sum(r["records"] for r in dropped) == 4
    assert {r["by"] for r in dropped} == {"shim"}


async def test_records_wake_the_follower(tmp_path: Path) -> None:
    script = (
        "import os\nfrom stellwerk_agent import Run\nrun = Run.get_context()\n"
        "os.mkfifo('gate'); print('ready')\nopen('gate').read()\nrun.log('n', 1)\nopen('gate').read()"
    )
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", script))
        await log_holds(handle, b"ready\n")
        gate = tmp_path / "a1-work" / "gate"
        handle.activity.clear()
        gate.write_text("")
        while not read(handle.attempt.records):
            await handle.activity.wait()
            handle.activity.clear()
        gate.write_text("")
        await handle.wait()


async def test_socket_is_private(tmp_path: Path) -> None:
    script = "import os\nprint(oct(os.stat(os.environ['STELLWERK_RUN_SOCKET']).st_mode & 0o777))"
    _, log = await records_of(tmp_path, script)
    assert log == b"0o600\n"
    assert not (tmp_path / "a1" / "run.sock").exists()


async def test_cost_of_log(tmp_path: Path) -> None:
    """Prints the cost of one call through the real supervisor; asserts completeness, no time."""
    script = (
        "import time\nfrom stellwerk_agent import Run\nrun = Run.get_context()\nbest = 9\n"
        "for _ in range(10):\n"
        "    a = time.perf_counter()\n"
        "    for step in range(2000): run.log('loss', step * 0.1, step=step)\n"
        "    best = min(best, (time.perf_counter() - a) / 2000)\n"
        "print('%.1f' % (best * 1e6))"
    )
    records, log = await records_of(tmp_path, script)
    assert len(records) == 20_000
    print(f"run.log: {log.decode().strip()} microseconds a call (best of 10)")  # noqa: T201
