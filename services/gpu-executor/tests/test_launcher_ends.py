"""How attempts end: exit statuses, signals, limits, stops; always one true exit record."""

import asyncio
import errno
import hashlib
import os
import signal
import time
from pathlib import Path

import pytest
from real_attempts import is_gone, launcher, log_holds, read, request

from stellwerk_gpu_executor.attempt_dir import ExitRecord


async def run(folder: Path, script: str, **options: object) -> tuple[ExitRecord, bytes]:
    """Start, wait for the end, clean up; returns the exit record and the log."""
    async with launcher(folder) as service:
        handle = await service.start(request(folder / "a1", script, **options))
        record = await handle.wait()
        log = read(handle.attempt.log)
        assert handle.attempt.read_exit() == record
        assert hashlib.sha256(log).hexdigest() == record.log_sha256
        assert len(log) == record.log_bytes
        await service.cleanup(handle.attempt)
        assert not (folder / "a1").exists()
    return record, log


async def test_success(tmp_path: Path) -> None:
    record, log = await run(tmp_path, "print('hello')")
    assert (record.reason, record.exit_code, record.signal) == ("exited", 0, None)
    assert record.message is None
    assert log == b"hello\n"
    assert record.cpu_s > 0
    assert record.peak_rss_bytes > 5_000_000


async def test_exit_status(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, "raise SystemExit(3)")
    assert (record.reason, record.exit_code) == ("exited", 3)
    assert record.message == "the script exited with status 3"


async def test_exit_message(tmp_path: Path) -> None:
    record, log = await run(tmp_path, "raise SystemExit('no data here')")
    assert (record.exit_code, log) == (1, b"no data here\n")


async def test_exception(tmp_path: Path) -> None:
    record, log = await run(tmp_path, "print('before')\nraise ValueError('bad shape')")
    assert record.exit_code == 1
    assert log.startswith(b"before\nTraceback")
    assert log.endswith(b"ValueError: bad shape\n")


async def test_killed_by_signal(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, "import os\nos.kill(os.getpid(), 9)")
    assert (record.reason, record.exit_code, record.signal) == ("signaled", None, signal.SIGKILL)
    assert record.oom is False


async def test_segmentation_fault(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, "import ctypes\nctypes.string_at(0)")
    assert (record.reason, record.signal) == ("signaled", signal.SIGSEGV)
    assert record.message == "the script was ended by SIGSEGV (signal 11)"


async def test_ten_megabytes_without_newline(tmp_path: Path) -> None:
    record, log = await run(tmp_path, "print('x' * 10_000_000, end='')")
    assert record.exit_code == 0
    assert log == b"x" * 10_000_000


async def test_invalid_utf8_is_kept(tmp_path: Path) -> None:
    _, log = await run(tmp_path, r"import os; os.write(1, b'\xff\xfe\x00\n')")
    assert log == b"\xff\xfe\x00\n"


async def test_many_lines(tmp_path: Path) -> None:
    script = "import sys\nfor n in range(200_000): sys.stdout.write(f'line {n}\\n')"
    _, log = await run(tmp_path, script, env={"PYTHONUNBUFFERED": ""})
    assert log == b"".join(b"line %d\n" % n for n in range(200_000))


async def test_stdout_and_stderr_keep_their_order(tmp_path: Path) -> None:
    script = "import os\nfor n in range(1000): os.write(1 + n % 2, b'%d\\n' % n)"
    _, log = await run(tmp_path, script)
    assert log == b"".join(b"%d\n" % n for n in range(1000))


async def test_missing_interpreter(tmp_path: Path) -> None:
    record, log = await run(tmp_path, "", argv=["/no/such/python", "main.py"])
    assert (record.reason, record.exit_code, log) == ("launch-failed", None, b"")
    assert record.message == f"cannot start '/no/such/python': {os.strerror(errno.ENOENT)}"


async def test_missing_first_line_interpreter(tmp_path: Path) -> None:
    script = tmp_path / "tool"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o700)
    record, _ = await run(tmp_path, "", argv=[str(script)])
    assert record.message is not None
    assert record.message.endswith("the interpreter named in its first line is not")


async def test_missing_working_folder(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, "", cwd=tmp_path / "gone")
    assert record.reason == "launch-failed"
    assert record.message is not None
    assert record.message.startswith(f"cannot enter the working folder '{tmp_path}/gone'")


DAEMON = """
import os, sys
read, write = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(write, b'%d' % os.getpid())
        import signal; signal.pause()
    os._exit(0)
print(os.read(read, 20).decode())
"""


async def test_daemon_is_ended_with_the_run(tmp_path: Path) -> None:
    """Double fork and setsid; it also holds the log's pipe open, which must not delay the end."""
    record, log = await run(tmp_path, DAEMON)
    assert (record.reason, record.exit_code) == ("exited", 0)
    assert record.duration_s < 5
    assert is_gone(int(log))


STUBBORN = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: print('not yet'))
print('ready')
while True: signal.pause()
"""


async def test_stop_then_kill_after_grace(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", STUBBORN))
        await log_holds(handle, b"ready\n")
        started = time.monotonic()
        handle.stop("superseded", grace_s=0.4)
        handle.stop("canceled", grace_s=30)
        record = await handle.wait()
        assert 0.3 < time.monotonic() - started < 10
    assert (record.reason, record.signal) == ("superseded", signal.SIGKILL)
    assert read(handle.attempt.log).endswith(b"not yet\n")


async def test_repeated_stop_may_shorten_the_grace(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", STUBBORN))
        await log_holds(handle, b"ready\n")
        handle.stop("canceled")
        await log_holds(handle, b"not yet\n")
        handle.stop("node-drain", grace_s=0)
        record = await handle.wait()
    assert (record.reason, record.signal) == ("canceled", signal.SIGKILL)
    assert read(handle.attempt.log).count(b"not yet") == 1


async def test_stop_is_graceful(tmp_path: Path) -> None:
    script = "import signal, sys\nsignal.signal(15, lambda *_: sys.exit(0))\nprint('ready')\nsignal.pause()"
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", script))
        await log_holds(handle, b"ready\n")
        handle.stop("canceled")
        record = await handle.wait()
    assert (record.reason, record.exit_code) == ("canceled", 0)


async def test_longest_duration(tmp_path: Path) -> None:
    record, _ = await run(tmp_path, "import signal; signal.pause()", max_duration_s=0.5)
    assert (record.reason, record.signal) == ("timeout", signal.SIGTERM)
    assert record.message == "the run reached its longest allowed duration of 0.5 s"


async def test_memory_limit(tmp_path: Path) -> None:
    script = "import signal\nheld = bytearray(200_000_000)\nsignal.pause()"
    record, _ = await run(tmp_path, script, memory_limit_bytes=100_000_000)
    assert (record.reason, record.oom) == ("oom", True)
    assert record.message is not None
    assert "its limit of 100000000" in record.message
    assert record.peak_rss_bytes > 100_000_000


async def test_lease_expires(tmp_path: Path) -> None:
    lease = time.monotonic() + 0.5
    record, _ = await run(tmp_path, "import signal; signal.pause()", lease=lease)
    assert record.reason == "lease-expired"
    assert time.monotonic() >= lease


async def test_lease_renewed_and_taken_back(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        script = "import signal; signal.pause()"
        first = time.monotonic() + 0.5
        handle = await service.start(request(tmp_path / "a1", script, lease=first))
        handle.renew(time.monotonic() + 60)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await handle.wait()
        handle.renew(time.monotonic())
        record = await handle.wait()
        assert time.monotonic() > first
    assert record.reason == "lease-expired"


async def test_log_limit_blocks_the_run(tmp_path: Path) -> None:
    script = "import sys\nwhile True: sys.stdout.write('y' * 999 + '\\n')"
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", script, log_limit_bytes=100_000))
        log = await log_holds(handle, b"[stellwerk: log limit of 100000 bytes reached")
        assert log.startswith((b"y" * 999 + b"\n") * 100 + b"[stellwerk")
        handle.stop("canceled")
        record = await handle.wait()
    assert record.reason == "canceled"
    assert record.log_dropped_bytes > 0
    assert read(handle.attempt.log).endswith(b" bytes dropped]\n")


async def test_log_limit_drops_on_request(tmp_path: Path) -> None:
    script = "print('z' * 300_000, end='')"
    record, log = await run(tmp_path, script, log_limit_bytes=100_000, log_overflow="drop")
    assert record.exit_code == 0
    assert record.log_dropped_bytes == 200_000
    assert log == b"z" * 100_000 + b"\n[stellwerk: 200000 bytes dropped]\n"


async def test_environment_and_process_state(tmp_path: Path) -> None:
    script = (
        "import json, os, resource, signal, sys\n"
        "print(json.dumps([dict(os.environ), os.getsid(0) == os.getpid(), sys.stdin.read(),"
        " resource.getrlimit(resource.RLIMIT_CORE), sorted(os.listdir('/proc/self/fd'))[:-1],"
        " signal.getsignal(signal.SIGHUP) == signal.SIG_DFL, oct(os.umask(0))]))"
    )
    _, log = await run(tmp_path, script, umask=0o027, env={"OWN": "1"})
    import json

    env, leads_session, stdin, core, descriptors, hangup, umask = json.loads(log)
    folder = str(tmp_path / "a1")
    assert env.pop("OWN") == "1"
    assert env["STELLWERK_RUN_ID"] == "run-a"
    assert env["STELLWERK_ATTEMPT"] == "1"
    assert env["STELLWERK_RUN_SOCKET"] == folder + "/run.sock"
    assert env["STELLWERK_UPLOADS_DIR"] == folder + "/uploads"
    assert "PYTHONDONTWRITEBYTECODE" not in env
    assert (leads_session, stdin, core, hangup) == (True, "", [0, 0], True)
    assert descriptors == ["0", "1", "2"]
    assert umask == "0o27"


async def test_attempt_folder_is_private(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(request(tmp_path / "a1", "", env={"TOKEN": "secret"}))
        await handle.wait()
        modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "a1").iterdir()}
    assert (tmp_path / "a1").stat().st_mode & 0o777 == 0o700
    assert modes.pop("uploads") == 0o700
    assert set(modes.values()) == {0o600}, modes
