"""Executor killed, supervisor killed, nothing started: runs go on or end, and nothing stays."""

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from real_attempts import attempt_of, is_gone, launcher, log_holds, read, request

from stellwerk_gpu_executor.launching import AttemptRunningError

WAITS = """
import os, signal
print('pid', os.getpid())
os.mkfifo('gate')
print('ready')
print(open('gate').read())
"""

EXECUTOR = """
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from real_attempts import launcher, log_holds, request
async def main():
    folder = Path({folder!r})
    async with launcher(folder) as service:
        handle = await service.start(request(folder / 'a1', {script!r}))
        await log_holds(handle, b'ready\\n')
        print('up', flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


def executor(folder: Path, script: str) -> "subprocess.Popen[bytes]":
    """Another executor process with one run that has printed `ready`."""
    tests = str(Path(__file__).parent)
    code = EXECUTOR.format(tests=tests, folder=str(folder), script=script)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


async def test_run_outlives_a_killed_executor(tmp_path: Path) -> None:
    first = executor(tmp_path, WAITS)
    kill(first)
    async with launcher(tmp_path) as service:
        handle = await service.adopt(attempt_of(tmp_path / "a1"))
        assert handle is not None
        assert handle.alive()
        with pytest.raises(AttemptRunningError):
            await service.cleanup(handle.attempt)
        (tmp_path / "a1-work" / "gate").write_text("open")
        record = await handle.wait()
        assert (record.reason, record.exit_code) == ("exited", 0)
        assert read(handle.attempt.log).endswith(b"ready\nopen\n")
        await service.cleanup(handle.attempt)


async def test_adopted_run_is_followed_and_stopped(tmp_path: Path) -> None:
    script = "import signal\nsignal.signal(15, lambda *_: print('stopping'))\nprint('ready')\nsignal.pause()"
    kill(executor(tmp_path, script))
    async with launcher(tmp_path) as service:
        handle = await service.adopt(attempt_of(tmp_path / "a1"))
        assert handle is not None
        handle.stop("canceled", grace_s=5)
        record = await handle.wait()
    assert (record.reason, record.exit_code) == ("canceled", 0)
    assert read(handle.attempt.log) == b"ready\nstopping\n"


async def test_run_that_ended_while_nobody_watched(tmp_path: Path) -> None:
    kill(executor(tmp_path, WAITS))
    attempt = attempt_of(tmp_path / "a1")
    shim = attempt.read_shim()
    assert shim is not None
    pidfd = os.pidfd_open(shim.pid)
    (tmp_path / "a1-work" / "gate").write_text("open")
    await readable(pidfd)
    async with launcher(tmp_path) as service:
        handle = await service.adopt(attempt)
        assert handle is not None
        record = handle.exit_record()
    assert record is not None
    assert record.exit_code == 0


async def readable(pidfd: int) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(pidfd, ended.set)
    await ended.wait()
    loop.remove_reader(pidfd)
    os.close(pidfd)


FAMILY = """
import os, signal
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, b'%d' % os.getpid())
        signal.pause()
    os._exit(0)
print('pids', os.getpid(), os.read(read, 20).decode())
print('ready')
signal.pause()
"""


async def test_killed_supervisor_takes_the_run_along(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", FAMILY))
        log = await log_holds(handle, b"ready\n")
        shim = handle.attempt.read_shim()
        assert shim is not None
        os.kill(shim.pid, signal.SIGKILL)
        record = await handle.wait()
        assert (record.reason, record.exit_code, record.signal) == ("shim-lost", None, None)
        assert record.log_bytes == len(read(handle.attempt.log))
        assert all(is_gone(int(pid)) for pid in log.split(b"\n")[0].split()[1:])
        assert handle.attempt.read_exit() == record


async def test_executor_and_supervisor_killed(tmp_path: Path) -> None:
    process = executor(tmp_path, FAMILY)
    attempt = attempt_of(tmp_path / "a1")
    shim = attempt.read_shim()
    assert shim is not None
    kill(process)
    first_process = os.pidfd_open(shim.child_pid)
    os.kill(shim.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        await readable(first_process)  # ended by the kernel: no executor is there to do it
    async with launcher(tmp_path) as service:
        handle = await service.adopt(attempt)
        assert handle is not None
        record = await handle.wait()
        assert record.reason == "shim-lost"
        pids = read(attempt.log).split(b"\n")[0].split()[1:]
        assert len(pids) == 2
        assert all(is_gone(int(pid)) for pid in pids)
        await service.cleanup(attempt)
    assert not attempt.path.exists()


async def test_spare_does_not_outlive_its_executor(tmp_path: Path) -> None:
    process = executor(tmp_path, WAITS)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    shim = attempt_of(tmp_path / "a1").read_shim()
    assert shim is not None
    spares = [int(child) for child in children if int(child) != shim.pid]
    assert len(spares) == 1
    pidfd = os.pidfd_open(spares[0])
    kill(process)
    async with asyncio.timeout(10):
        await readable(pidfd)
    async with launcher(tmp_path) as service:
        handle = await service.adopt(attempt_of(tmp_path / "a1"))
        assert handle is not None
        handle.stop("canceled", grace_s=0)
        await handle.wait()


async def test_nothing_to_adopt(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        attempt = attempt_of(tmp_path / "a1")
        assert await service.adopt(attempt) is None
        attempt.create()
        attempt.write_launch({"notify_key": "run-a/1"})
        assert await service.adopt(attempt) is None
        handle = await service.start(request(tmp_path / "a1", "print(1)"))
        assert (await handle.wait()).exit_code == 0


async def test_a_second_supervisor_does_nothing(tmp_path: Path) -> None:
    """A start that an earlier executor began and this one repeats runs the script once."""
    kill(executor(tmp_path, WAITS))
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", WAITS))
        (tmp_path / "a1-work" / "gate").write_text("open")
        assert (await handle.wait()).exit_code == 0
    assert read(handle.attempt.log).count(b"ready") == 1


async def test_other_machine_boot_is_lost(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", "print(1)"))
        await handle.wait()
        attempt = handle.attempt
        shim = attempt.path / "shim.json"
        shim.write_text(shim.read_text().replace('"boot_id": "', '"boot_id": "x'))
        (attempt.path / "exit.json").unlink()
        handle = await service.adopt(attempt)
        assert handle is not None
        record = handle.exit_record()
    assert record is not None
    assert record.message == "this machine restarted while the run was going"


async def test_path_longer_than_a_socket_address(tmp_path: Path) -> None:
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    script = "from stellwerk_agent import Run\nRun.get_context().log('loss', 0.5)\nprint('ready')"
    async with launcher(folder) as service:
        handle = await service.start(request(folder / "a1", script))
        record = await handle.wait()
        assert record.exit_code == 0, read(handle.attempt.log)
        assert b'"n":"loss"' in read(handle.attempt.records)


async def test_many_attempts_at_once(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:

        async def one(number: int) -> int | None:
            script = f"raise SystemExit({number})"
            handle = await service.start(request(tmp_path / f"a{number}", script, attempt=number))
            return (await handle.wait()).exit_code

        assert await asyncio.gather(*map(one, range(1, 9))) == list(range(1, 9))
