"""Runs in containers: what holds for plain processes holds here too, and the walls are there."""

import asyncio
import errno
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import images
import pytest
import servers_in_containers
from engine import client

EXECUTOR_TESTS = images.ROOT / "services/gpu-executor/tests"
sys.path.append(str(EXECUTOR_TESTS))

import real_attempts
import test_launcher_ends as ends
from real_attempts import AGENT, log_holds, read

import stellwerk_shim
from stellwerk_gpu_executor import docker_launcher
from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.container import Profile
from stellwerk_gpu_executor.docker_launcher import RUN_USER, DockerLauncher
from stellwerk_gpu_executor.engine import Engine, EngineError, State
from stellwerk_gpu_executor.gpu_shares import GpuShares
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_kit.registry_logins import RegistryLogins
from stellwerk_kit.testing import wait_until

PYTHON = "/usr/bin/python3"
SHIM = Path(stellwerk_shim.__file__).parents[1]
OTHER = "launcher-test"


@asynccontextmanager
async def launcher(
    folder: Path,
    logins: RegistryLogins | None = None,
    *,
    engine: Engine | None = None,
    gpus: tuple[str, ...] = (),
) -> AsyncIterator[DockerLauncher]:
    """A launcher as the service makes it."""
    home = folder / "notify"
    home.mkdir(exist_ok=True)
    home.chmod(0o711)
    notify = NotifyServer(home / "sock", mode=0o666)
    await notify.start()
    profile = Profile(
        executor_id=OTHER, image=images.base(), network="none", shm_bytes=64 << 20,
        user=os.geteuid() or RUN_USER, shim=SHIM, notify=home, host={},
    )  # fmt: skip
    engine = engine or Engine(OTHER, logins)
    service = DockerLauncher(notify, engine, profile, gpus=GpuShares(gpus, await engine.gpus()))
    try:
        yield service
    finally:
        await service.close()
        await notify.close()


def launch_request(folder: Path, script: str, attempt: int = 1, **options: Any) -> LaunchRequest:
    """As for plain processes, with the image's Python and what the container has to see."""
    options.setdefault("argv", [PYTHON, "main.py"])
    made = real_attempts.request(folder, script, attempt, **options)
    work = folder.with_name(folder.name + "-work")
    work.chmod(0o777)
    return LaunchRequest(
        **{name: getattr(made, name) for name in made.__slots__}
        | {"readable": (Path(AGENT),), "writable": (work,)}
    )


@pytest.fixture(autouse=True)
def in_containers(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[None]:
    """The shared tests use this launcher; they do not all clean up, the others do."""
    monkeypatch.setattr(ends, "launcher", launcher)
    monkeypatch.setattr(ends, "request", launch_request)
    yield
    left = client().containers.list(
        all=True, filters={"label": f"stellwerk.executor={OTHER}"}, ignore_removed=True
    )
    for container in left:
        container.remove(force=True)
    if request.function.__name__ not in SAME:
        assert [container.name for container in left] == []


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder that other users may walk through, as an executor's folder is."""
    folder = Path(tempfile.mkdtemp(prefix="sw-run-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


SAME = (
    "test_success", "test_exit_status", "test_exit_message", "test_exception",
    "test_killed_by_signal", "test_segmentation_fault", "test_ten_megabytes_without_newline",
    "test_invalid_utf8_is_kept", "test_many_lines", "test_stdout_and_stderr_keep_their_order",
    "test_missing_interpreter", "test_missing_working_folder", "test_stop_then_kill_after_grace",
    "test_repeated_stop_may_shorten_the_grace", "test_stop_is_graceful", "test_longest_duration",
    "test_lease_expires", "test_log_limit_blocks_the_run",
    "test_log_limit_drops_on_request",
)  # fmt: skip
globals().update({name: getattr(ends, name) for name in SAME})


WALLS = """
import json, os, socket
def tried(do):
    try:
        do()
        return "done"
    except OSError as error:
        return type(error).__name__
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
print(json.dumps({
    "uid": os.getuid(), "caps": int(status["CapEff"], 16) | int(status["CapBnd"], 16), "nnp": status["NoNewPrivs"],
    "seccomp": status["Seccomp"],
    "root": tried(lambda: open("/etc/x", "w")), "agent": tried(lambda: open(os.environ["PYTHONPATH"] + "/x", "w")),
    "devices": sorted(os.listdir("/sys/class/net")),
    "out": tried(lambda: socket.create_connection(("192.0.2.1", 80), 2)),
    "engine": os.path.exists("/var/run/docker.sock"), "env": dict(os.environ),
    "pids": open("/sys/fs/cgroup/pids/pids.max").read().strip() if os.path.exists("/sys/fs/cgroup/pids/pids.max") else open("/sys/fs/cgroup/pids.max").read().strip(),
    "shm": os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize, "work": tried(lambda: open("mine", "w")),
    "processes": sorted(int(p) for p in os.listdir("/proc") if p.isdigit())[:2],
}))
"""


async def test_walls(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(launch_request(tmp_path / "a1", WALLS))
        assert (await handle.wait()).exit_code == 0, read(handle.attempt.log)
        told = json.loads(read(handle.attempt.log))
        await service.cleanup(handle.attempt)
    assert told["uid"] != 0
    assert told["caps"] == 0
    assert told["nnp"].strip() == "1"
    assert told["seccomp"].strip() == "2"
    assert told["root"] == told["agent"] == "OSError"
    assert told["work"] == "done"
    assert told["devices"] == ["lo"]
    assert told["out"] == "OSError"
    assert told["engine"] is False
    assert told["pids"] == "4096"
    assert told["shm"] == 64 << 20
    assert set(told["env"]) - {"LC_CTYPE"} == {
        "PATH", "PYTHONPATH", "PYTHONUNBUFFERED", "STELLWERK_RUN_ID", "STELLWERK_ATTEMPT",
        "STELLWERK_RUN_SOCKET", "STELLWERK_UPLOADS_DIR",
    }  # fmt: skip


async def test_in_run_library(tmp_path: Path) -> None:
    script = "from stellwerk_agent import Run\nrun = Run.get_context()\nrun.log('loss', 0.5)\n"
    async with launcher(tmp_path) as service:
        handle = await service.start(launch_request(tmp_path / "a1", script))
        assert (await handle.wait()).exit_code == 0, read(handle.attempt.log)
        (record,) = map(json.loads, read(handle.attempt.records).splitlines())
        assert (record["k"], record["n"], record["v"]) == ("metric", "loss", 0.5)
        await service.cleanup(handle.attempt)


HUNGRY = "data = []\nwhile True: data.append(bytearray(8 << 20))"
CHILD = f"import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', '''{HUNGRY}''']).returncode)"


async def test_out_of_memory(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        limit = 96 << 20
        handle = await service.start(
            launch_request(tmp_path / "a1", HUNGRY, memory_limit_bytes=limit)
        )
        record = await handle.wait()
        assert (record.reason, record.oom) == ("oom", True), record
        await service.cleanup(handle.attempt)


async def test_out_of_memory_of_a_child_is_told(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        limit = 96 << 20
        handle = await service.start(
            launch_request(tmp_path / "a1", CHILD, memory_limit_bytes=limit)
        )
        record = await handle.wait()
        await service.cleanup(handle.attempt)
    assert (record.exit_code, record.oom) == (0, True), record
    assert record.message is not None
    assert "memory limit" in record.message


async def test_daemon_ends_with_the_run(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(launch_request(tmp_path / "a1", ends.DAEMON))
        record = await handle.wait()
        state = await service._engine.state(handle.name)
        await service.cleanup(handle.attempt)
    assert (record.reason, record.exit_code) == ("exited", 0)
    assert state is not None
    assert not state.running


async def test_image_that_is_not_there(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        service._profile = Profile(
            **{n: getattr(service._profile, n) for n in Profile.__slots__}
            | {"image": "stellwerk-test/none:0"}
        )
        handle = await service.start(launch_request(tmp_path / "a1", "print(1)"))
        record = await handle.wait()
        await service.cleanup(handle.attempt)
    assert record.reason == "launch-failed"
    said = "image stellwerk-test/none:0 is not on this node and cannot be pulled: its registry "
    assert str(record.message).startswith(said), record.message


LINES = "import time\nfor n in range(60):\n    print(n, flush=True)\n    time.sleep(0.05)\n"
ALL_LINES = b"".join(b"%d\n" % n for n in range(60))


async def test_adopted_after_a_restart_of_the_executor(tmp_path: Path) -> None:
    async with launcher(tmp_path) as first:
        handle = await first.start(launch_request(tmp_path / "a1", LINES))
        await log_holds(handle, b"3\n")
    async with launcher(tmp_path) as second:
        adopted = await second.adopt(AttemptDir(tmp_path / "a1"))
        assert adopted is not None
        await log_holds(adopted, b"59\n")  # the new notify socket wakes us
        assert (await adopted.wait()).exit_code == 0
        assert read(adopted.attempt.log) == ALL_LINES
        await second.cleanup(adopted.attempt)


async def test_ended_while_nobody_watched(tmp_path: Path) -> None:
    async with launcher(tmp_path) as first:
        handle = await first.start(
            launch_request(tmp_path / "a1", "print('x')\nraise SystemExit(7)")
        )
        attempt = handle.attempt
    await wait_until(lambda: attempt.read_exit() is not None, 20)
    async with launcher(tmp_path) as second:
        adopted = await second.adopt(AttemptDir(tmp_path / "a1"))
        assert adopted is not None
        assert (await adopted.wait()).exit_code == 7
        await second.cleanup(adopted.attempt)


async def test_nothing_to_adopt(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        attempt = AttemptDir(tmp_path / "a1")
        attempt.create()
        assert await service.adopt(attempt) is None
        made = launch_request(tmp_path / "a1", "print(1)")
        attempt.write_launch(made.launch_file(attempt, tmp_path / "notify" / "sock"))
        assert await service.adopt(attempt) is None  # written down, and never started


async def test_lease_renewed_and_taken_back(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        first = time.monotonic() + 3
        waits = "import signal; signal.pause()"
        handle = await service.start(launch_request(tmp_path / "a1", waits, lease=first))
        handle.renew(time.monotonic() + 600)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(first + 0.5 - time.monotonic()):
                await handle.wait()
        handle.renew(time.monotonic())
        record = await handle.wait()
        await service.cleanup(handle.attempt)
    assert record.reason == "lease-expired"


@pytest.mark.parametrize("how", ["kill", "stop"])
async def test_container_ended_from_outside_is_no_cancel(tmp_path: Path, how: str) -> None:
    async with launcher(tmp_path) as service:
        handle = await service.start(launch_request(tmp_path / "a1", LINES))
        await log_holds(handle, b"3\n")
        getattr(client().containers.get(handle.name), how)()
        record = await handle.wait()
        await service.cleanup(handle.attempt)
    assert (record.reason, record.exit_code) == ("shim-lost", None)
    assert record.message is not None
    assert "ended from outside" in record.message


class Willing(Engine):
    """Starts containers without their devices, which this machine does not have."""

    def __init__(self) -> None:
        super().__init__(OTHER)
        self.asked: list[list[str]] = []

    async def start(self, name: str, config: dict[str, Any]) -> None:
        host = dict(config["HostConfig"])
        (wanted,) = host.pop("DeviceRequests")
        self.asked.append(wanted["DeviceIDs"])
        await super().start(name, config | {"HostConfig": host})


WAITS = "import signal; signal.pause()"


async def end(service: DockerLauncher, handle: Any) -> Any:
    handle.stop("canceled", 0.0)
    record = await handle.wait()
    await service.cleanup(handle.attempt)
    return record


async def test_each_run_gets_gpus_of_its_own(tmp_path: Path) -> None:
    """Also after a restart of the executor, which finds at the engine who has which."""
    have = ("GPU-a", "GPU-b", "GPU-c")

    async def start(service: DockerLauncher, number: int, gpus: int) -> Any:
        request = launch_request(tmp_path / f"g{number}", WAITS, number, gpus=gpus)
        return await service.start(request)

    engine = Willing()
    async with launcher(tmp_path, engine=engine, gpus=have) as service:
        first = await start(service, 1, 1)
        await start(service, 2, 1)
        assert engine.asked == [["GPU-a"], ["GPU-b"]]
        await end(service, first)
    engine = Willing()
    async with launcher(tmp_path, engine=engine, gpus=have) as service:
        third = await start(service, 3, 2)  # before anybody has looked after the second
        adopted = await service.adopt(AttemptDir(tmp_path / "g2"))
        assert adopted is not None
        fourth = await start(service, 4, 1)
        assert engine.asked == [["GPU-a", "GPU-c"]]
        record = await end(service, fourth)
        assert (record.reason, record.message) == (
            "launch-failed",
            "resources.gpus: 1 wanted, and of this node's 3 GPUs 3 are in use; ask for fewer, or wait",
        )
        await end(service, adopted)
        fifth = await start(service, 5, 1)
        assert engine.asked[1:] == [["GPU-b"]]
        await end(service, fifth)
        await end(service, third)


class Unheard(Willing):
    """Starts containers, and its answer is lost; it is away until ``back``."""

    def __init__(self) -> None:
        super().__init__()
        self.back = False

    async def start(self, name: str, config: dict[str, Any]) -> None:
        await super().start(name, config)
        raise EngineError("the Docker engine does not answer")

    async def remove(self, name: str) -> None:
        if not self.back:
            raise EngineError("the Docker engine does not answer")
        await super().remove(name)


async def test_a_run_whose_start_nobody_heard_of_is_removed_and_has_its_gpus_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_launcher, "AGAIN_S", 0.05)
    engine = Unheard()
    async with launcher(tmp_path, engine=engine, gpus=("GPU-a",)) as service:
        lost = await service.start(launch_request(tmp_path / "a1", WAITS, 1, gpus=1))
        assert (await lost.wait()).reason == "launch-failed"
        state = await engine.state(lost.name)
        assert state is not None
        assert state.running
        second = await service.start(launch_request(tmp_path / "a2", WAITS, 2, gpus=1))
        assert "1 GPUs 1 are in use" in str((await second.wait()).message)
        engine.back = True

        async def gone(name: str) -> bool:
            return await engine.state(name) is None

        await wait_until(lambda: gone(lost.name), 30)
        for handle in (lost, second):
            await service.cleanup(handle.attempt)
        third = await service.start(launch_request(tmp_path / "a3", WAITS, 3, gpus=1))
        assert (await third.wait()).message == "the Docker engine does not answer"
        assert engine.asked == [["GPU-a"], ["GPU-a"]]
        await wait_until(lambda: gone(third.name), 30)
        await service.cleanup(third.attempt)


class Forgetful(Engine):
    """Does not tell what has become of a container at first."""

    failures = 2

    async def state(self, name: str) -> State | None:
        if self.failures:
            self.failures -= 1
            raise EngineError("the Docker engine does not answer")
        return await super().state(name)


async def test_an_end_is_told_when_the_engine_answers_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_launcher, "AGAIN_S", 0.05)
    engine = Forgetful(OTHER)
    async with launcher(tmp_path, engine=engine) as service:
        handle = await service.start(launch_request(tmp_path / "a1", "raise SystemExit(3)"))
        async with asyncio.timeout(60):
            assert (await handle.wait()).exit_code == 3
        assert engine.failures == 0
        await service.cleanup(handle.attempt)


async def test_an_end_is_told_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(docker_launcher, "AGAIN_S", 0.05)
    full, write = [1, 2], AttemptDir.write_exit

    def write_exit(attempt: AttemptDir, record: Any) -> None:
        if full:
            full.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(attempt, record)

    monkeypatch.setattr(AttemptDir, "write_exit", write_exit)
    async with launcher(tmp_path) as service:
        handle = await service.start(launch_request(tmp_path / "a1", WAITS))
        client().containers.get(handle.name).kill()
        async with asyncio.timeout(60):
            assert (await handle.wait()).reason == "shim-lost"
        assert not full
        await service.cleanup(handle.attempt)


async def test_orphans_are_swept(tmp_path: Path) -> None:
    folders = tmp_path / "attempts"
    async with launcher(tmp_path) as first:
        handle = await first.start(launch_request(folders / "run-a-1", LINES))
    (folders / "run-a-1").rename(tmp_path / "gone")  # the run still writes into it
    async with launcher(tmp_path) as second:
        await second.sweep(folders)
        assert await second._engine.names() == []
    assert handle.name == "stellwerk-run-a-1"


async def test_many_at_once(tmp_path: Path) -> None:
    async with launcher(tmp_path) as service:
        requests = [launch_request(tmp_path / f"a{n}", f"print({n})", attempt=n) for n in range(12)]
        handles = await asyncio.gather(*(service.start(each) for each in requests))
        for number, handle in enumerate(handles):
            assert (await handle.wait()).exit_code == 0
            assert read(handle.attempt.log) == b"%d\n" % number
            await service.cleanup(handle.attempt)


async def test_image_of_a_registry_that_wants_a_login(tmp_path: Path) -> None:
    """Refused without it and with a wrong one, and neither is told; pulled with the right one."""
    users = tmp_path / "users"
    users.mkdir()
    right = servers_in_containers.LOGIN
    with servers_in_containers.registry(users) as host:
        image = f"{host}/private/base:1"
        client().images.get(images.base()).tag(image)
        client().images.push(image, auth_config=right)
        client().images.remove(image)
        told = []
        for number, login in enumerate((None, {**right, "password": "wrong-one"}, right), start=1):
            logins = RegistryLogins({host: login} if login else {})
            async with launcher(tmp_path, logins) as service:
                asked = launch_request(tmp_path / f"r{number}", "print('here')", number)
                handle = await service.start(replace(asked, image=image))
                record = await handle.wait()
                told.append((record.reason, record.message or ""))
                await service.cleanup(handle.attempt)
        client().images.remove(image)
    refused = f"image {image} is not on this node and cannot be pulled: its registry refuses "
    for reason, message in told[:2]:
        assert reason == "launch-failed"
        assert message.startswith(refused), message
        assert "wrong-one" not in message
    assert told[2] == ("exited", "")
