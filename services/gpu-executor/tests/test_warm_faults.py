"""What a warm process and its runs may suffer or try: the right result, or an error in words."""

import asyncio
import os
import random
import re
import resource
import signal
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from real_attempts import is_gone, launcher, log_holds, read, request

from stellwerk_gpu_executor import launcher as launchers
from stellwerk_gpu_executor.attempt_dir import AttemptDir, ExitRecord
from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import Recipe, recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until

ENV = {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"}
LEAKY = """
import os, select, socket
held = [open('/dev/null') for _ in range(5)], select.epoll(), socket.socket(), os.pipe()
for number in held[3]: os.set_inheritable(number, True)
"""
WAITS = """
import os
os.mkfifo('gate')
print('ready')
print(open('gate').read())
"""
RECIPE = recipe_of(sys.executable, ENV)


@pytest_asyncio.fixture
async def pool(tmp_path: Path) -> AsyncIterator[WarmPool]:
    tasks = TaskOwner()
    made = WarmPool(tmp_path / "warm", ("json",), Limits(), SystemClock(), tasks)
    yield made
    made.close()
    await tasks.close()


@pytest_asyncio.fixture
async def service(tmp_path: Path) -> AsyncIterator[ProcessLauncher]:
    async with launcher(tmp_path) as made:
        yield made


async def server_of(pool: WarmPool, recipe: Recipe = RECIPE) -> WarmServer:
    await pool.ready(recipe)
    return pool.take(recipe)


async def start(
    service: ProcessLauncher, folder: Path, script: str, server: WarmServer, **options: object
) -> ProcessHandle:
    # A run that a failed test leaves behind ends by itself.
    asked = request(folder, script, warm=server, max_duration_s=60.0, **options)
    asked.env.clear()
    asked.env.update(ENV)
    return await service.start(asked)


def warm(handle: ProcessHandle) -> bool:
    return bool((handle.attempt.read_launch() or {})["warm"])


def ran(record: ExitRecord, handle: ProcessHandle, output: bytes) -> None:
    assert (record.reason, record.exit_code) == ("exited", 0), record
    assert read(handle.attempt.log) == output


async def test_nothing_that_preloading_left_open_reaches_a_run(
    tmp_path: Path, service: ProcessLauncher
) -> None:
    (tmp_path / "leaky.py").write_text(LEAKY)
    tasks = TaskOwner()
    pool = WarmPool(tmp_path / "warm", ("leaky",), Limits(), SystemClock(), tasks)
    server = await server_of(pool, recipe_of(sys.executable, {**ENV, "PYTHONPATH": str(tmp_path)}))
    script = """
import os
for name in os.listdir('/proc/self/fd'):
    if os.path.exists(f'/proc/self/fd/{name}'): print(name, end=' ')
for number in range(3, 64):
    try: os.write(number, b'written where nobody asked')
    except OSError: continue
    print('could write', number)
"""
    handle = await start(service, tmp_path / "a", script, server)
    ran(await handle.wait(), handle, b"0 1 2 ")
    assert warm(handle)
    pool.close()
    await tasks.close()


async def test_a_server_killed_while_it_loads_is_begun_again(pool: WarmPool) -> None:
    pool.want(RECIPE)
    await wait_until(lambda: len(pool.servers()) == 1)
    (only,) = pool.servers()
    os.kill(only.pid, signal.SIGKILL)
    with pytest.raises(ColdError, match="ended while it was loading"):
        await pool.ready(RECIPE)
    assert (await server_of(pool)).pid != only.pid


@pytest.mark.parametrize("phase", ["idle", "asked"])
async def test_a_run_whose_server_is_killed_before_it_forks_begins_cold(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool, phase: str
) -> None:
    server = await server_of(pool)
    os.kill(server.pid, signal.SIGKILL if phase == "idle" else signal.SIGSTOP)
    killer = kill_after(server.pid, 0.1)
    handle = await start(service, tmp_path / "a", "print('ran')", server)
    ran(await handle.wait(), handle, b"ran\n")
    launch = handle.attempt.read_launch() or {}
    assert (launch["warm"], launch["cold_reason"]) == (False, "its warm process did not start it")
    killer.join()


def kill_after(pid: int, seconds: float) -> threading.Timer:
    """Until its pool drops it a killed one is a zombie: the id stays its own."""
    timer = threading.Timer(seconds, os.kill, (pid, signal.SIGKILL))
    timer.start()
    return timer


async def test_server_killed_at_any_moment_of_a_start(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool
) -> None:
    """Whatever was under way: each run runs once, its log is whole, nothing of it stays."""
    chance = random.Random(5)
    kinds = set()
    for number in range(40):
        server = await server_of(pool)
        killer = kill_after(server.pid, chance.uniform(0, 0.02))
        script = "import os; print('began', os.getpid()); print('ended')"
        handle = await start(service, tmp_path / f"a{number}", script, server)
        record = await handle.wait()
        killer.join()
        assert (record.reason, record.exit_code) == ("exited", 0), record
        output = read(handle.attempt.log)
        found = re.fullmatch(rb"began (\d+)\nended\n", output)
        assert found, output
        assert is_gone(int(found[1]))
        kinds.add(warm(handle))
        pool.broken(RECIPE)
    assert kinds == {True, False}


async def test_a_run_that_ends_its_parents_ends_alone(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool
) -> None:
    server = await server_of(pool)
    neighbour = await start(service, tmp_path / "n", WAITS, server)
    await log_holds(neighbour, b"ready\n")
    script = WAITS + "import signal, time; os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"
    first = await start(service, tmp_path / "a", script, server)
    await log_holds(first, b"ready\n")
    go_on(tmp_path / "a-work")
    record = await first.wait()
    assert (record.reason, record.exit_code) == ("shim-lost", None)
    assert record.message == "the run's supervisor was killed, so the run was ended"
    script = f"import os, signal; os.kill({server.pid}, signal.SIGKILL); print('did')"
    second = await start(service, tmp_path / "b", script, server)
    ran(await second.wait(), second, b"did\n")
    third = await start(service, tmp_path / "c", "print('cold')", server)
    ran(await third.wait(), third, b"cold\n")
    assert [warm(each) for each in (first, second, third)] == [True, True, False]
    go_on(tmp_path / "n-work")
    ran(await neighbour.wait(), neighbour, b"ready\ngo\n")


async def test_a_run_that_traces_its_server_delays_nobody_for_long(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool
) -> None:
    """As the same user it can, where runs have no sandbox: others begin cold meanwhile."""
    server = await server_of(pool)
    server.link.settimeout(0.5)
    attach = f"""
import ctypes, os
assert ctypes.CDLL(None).ptrace(16, {server.pid}, 0, 0) == 0
os.waitpid({server.pid}, 0x40000000)
{WAITS}"""
    tracer = await start(service, tmp_path / "a", attach, server)
    await log_holds(tracer, b"ready\n")
    second = await start(service, tmp_path / "b", "print('cold')", server)
    ran(await second.wait(), second, b"cold\n")
    assert not warm(second)
    go_on(tmp_path / "a-work")
    ran(await tracer.wait(), tracer, b"ready\ngo\n")
    assert not is_gone(server.pid), "it goes on when its tracer ends"
    assert second.attempt.log.read_bytes() == b"cold\n", "what it does now finds the attempt taken"


async def test_a_run_out_of_memory_ends_alone(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool
) -> None:
    server = await server_of(pool)
    neighbour = await start(service, tmp_path / "n", WAITS, server)
    await log_holds(neighbour, b"ready\n")
    script = "import time\nheld = bytearray(300_000_000)\nheld[::4096] = b'x' * len(held[::4096])\ntime.sleep(60)"
    large = await start(service, tmp_path / "a", script, server, memory_limit_bytes=100_000_000)
    record = await large.wait()
    assert (record.reason, record.oom, record.exit_code) == ("oom", True, None)
    assert "more than its limit of 100000000" in str(record.message)
    small = await start(service, tmp_path / "b", "print('warm')", server)
    ran(await small.wait(), small, b"warm\n")
    assert warm(small)
    go_on(tmp_path / "n-work")
    ran(await neighbour.wait(), neighbour, b"ready\ngo\n")


async def test_a_server_that_cannot_open_another_descriptor_ends_and_the_run_runs_once(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool
) -> None:
    server = await server_of(pool)
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (4, 4096))
    handle = await start(service, tmp_path / "a", "print('ran')", server)
    ran(await handle.wait(), handle, b"ran\n")


async def test_a_supervisor_that_is_late_and_then_gone_leaves_no_descriptor(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await server_of(pool)
    await_start = launchers._await_start

    async def late(attempt: AttemptDir, activity: asyncio.Event, pidfd: int, wait_s: float) -> None:
        if wait_s == launchers.WARM_TIMEOUT_S:
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            await wait_until(lambda: is_reaped(pidfd))
            raise TimeoutError
        await await_start(attempt, activity, pidfd, wait_s)

    monkeypatch.setattr(launchers, "_await_start", late)
    before = pidfds()
    handle = await start(service, tmp_path / "a", "print('ran')", server)
    await handle.wait()
    assert pidfds() == before


def is_reaped(pidfd: int) -> bool:
    try:
        signal.pidfd_send_signal(pidfd, 0)
    except ProcessLookupError:
        return True
    return False


def pidfds() -> int:
    links = Path("/proc/self/fd").iterdir()
    return sum("pidfd" in str(link.readlink()) for link in links if link.is_symlink())


@pytest.mark.slow
async def test_two_hundred_runs_at_once(
    tmp_path: Path, service: ProcessLauncher, pool: WarmPool
) -> None:
    server = await server_of(pool)
    handles = [
        await start(service, tmp_path / f"a{n}", WAITS + f"print({n})", server) for n in range(200)
    ]
    for number, handle in enumerate(handles):
        await log_holds(handle, b"ready\n")
        assert warm(handle), number
    for number in range(200):
        go_on(tmp_path / f"a{number}-work")
    for number, handle in enumerate(handles):
        ran(await handle.wait(), handle, b"ready\ngo\n%d\n" % number)
    await wait_until(lambda: not children_of(server.pid), 10)


def go_on(work: Path) -> None:
    (work / "gate").write_text("go")


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
