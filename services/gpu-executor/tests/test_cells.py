"""What runs of one environment have in common, and that nothing of one is another's."""

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from real_attempts import is_gone, log_holds, read
from walled_attempts import attempt, lay_out, needs, run, walled, walls

from stellwerk_gpu_executor.forkserver import Spawned, WarmServer
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import WallsError
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.host import lacking
from stellwerk_shim import kernel


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


KERNEL = """
import ctypes, os, platform, sys, time
libc = ctypes.CDLL(None, use_errno=True)
ADD_KEY, KEYCTL = (248, 250) if platform.machine() == "x86_64" else (217, 219)
RINGS = {"user": -4, "session": -3}
"""
LEAVE = f"""{KERNEL}
def write(folder):
    try: open(folder + "/left", "w").close()
    except OSError: return
    wrote.append(folder)
wrote = []
for folder in ("/", "/dev", "/dev/shm", "/etc", "/opt", "/proc", "/run", "/sys", "/tmp", "/usr", "/var", "/var/tmp", "../..", "..", "."):
    write(folder)
libc.shmget(0x51e11, 4096, 0o1600)
libc.msgget(0x51e11, 0o1600)
for ring in RINGS.values(): libc.syscall(ADD_KEY, b"user", b"left", b"x", 1, ring)
libc.sethostname(b"left", 4)
try: terminal = os.openpty()
except OSError: pass
print(wrote)
print("ready", flush=True)
while not os.path.exists("go"): time.sleep(0.01)
"""
FIND = f"""{KERNEL}
import json
found = [folder for folder in ("/", "/dev", "/dev/shm", "/etc", "/run", "/tmp", "/var", "/var/tmp", "../..", "../../..", "..", ".") if os.path.exists(folder + "/left")]
print(json.dumps(dict(
    found=found, shm=libc.shmget(0x51e11, 1, 0), messages=libc.msgget(0x51e11, 0),
    keys=[name for name, ring in RINGS.items() if libc.syscall(KEYCTL, 10, ring, b"user", b"left", 0) >= 0],
    terminals=[n for n in os.listdir("/dev/pts") if n != "ptmx"] if os.path.isdir("/dev/pts") else [],
    processes=[n for n in os.listdir("/proc") if n.isdigit()], attempts=os.listdir("../.."), host=os.uname().nodename)))
"""


@pytest.mark.parametrize("at_once", [True, False])
async def test_nothing_that_a_run_leaves_is_seen_by_another(node: Path, at_once: bool) -> None:
    kernel._libc.syscall(kernel._KEYCTL, 1, None)  # a session keyring, as a service has one
    async with walled(node) as service:
        first = await service.start(attempt(node, LEAVE, max_duration_s=60.0))
        said = await log_holds(first, b"ready")
        go = first.attempt.path / "work/go"
        if not at_once:
            go.touch()
            await first.wait()
        second = await service.start(attempt(node, FIND, name="run-b-1", attempt=2))
        record = await second.wait()
        assert record.exit_code == 0, read(second.attempt.log)
        assert json.loads(read(second.attempt.log)) == {
            "found": [], "shm": -1, "messages": -1, "keys": [], "terminals": [],
            "processes": ["1", "2"], "attempts": ["run-b-1"], "host": os.uname().nodename,
        }  # fmt: skip
        go.touch()
        await first.wait()
        # Its own folders and what no other run has; nothing of the view that both have.
        own = ["/dev/shm", "/tmp", "/var/tmp", "../..", "."]
        assert said.decode().splitlines()[0] == str(own)


async def test_the_machine_cannot_be_set(node: Path) -> None:
    """Its settings are root's files, and a run of root's has root's number."""
    script = """
import os
for path in ("/proc/sys/kernel/core_pattern", "/proc/sys/vm/swappiness", "/proc/irq/default_smp_affinity"):
    try: open(path, "a"); print("can set", path)
    except OSError: pass
"""
    record, text = await run(node, script)
    assert (record.exit_code, text) == (0, "")


async def test_what_only_root_may_read_of_the_kernel_is_nobody_s(node: Path) -> None:
    """A run of root's has root's number, and these files tell of everybody."""
    script = """
import os
for folder, names, files in os.walk("/proc"):
    if folder == "/proc": names[:] = [n for n in names if not n.isdigit() and n not in ("self", "thread-self", "sys")]
    for path in (f"{folder}/{name}" for name in files):
        try:
            if not os.stat(path).st_mode & 0o044 and os.read(os.open(path, os.O_RDONLY | os.O_NONBLOCK), 1): print(path)
        except OSError: pass
"""
    record, text = await run(node, script)
    assert (record.exit_code, text) == (0, "")


def test_a_kernel_without_the_calls_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel, "_MOUNT_SETATTR", 9999)
    with pytest.raises(OSError, match=r"cannot fix /: the kernel is older than 5\.12"):
        kernel.fix("/")


async def test_a_cell_without_its_view_starts_no_run(node: Path) -> None:
    found = walls(node)
    asked = replace(await found.around(attempt(node, "print('ran')")), view=None, cgroups=())
    found.groups.sweep(())
    await found.close()
    notify = NotifyServer(node / "notify.sock")
    await notify.start()
    service = ProcessLauncher(notify)
    handle = await service.start(asked)
    record = await handle.wait()
    assert record.reason == "launch-failed"
    why = "cannot make its sandbox: its view of the machine was not handed over"
    assert record.message == why
    assert read(handle.attempt.log) == b""
    await service.close()
    await notify.close()


async def test_the_first_process_of_a_cell_is_out_of_reach(node: Path) -> None:
    script = """
import ctypes, os, signal, time
libc = ctypes.CDLL(None, use_errno=True)
def says(result): return "done" if result >= 0 else os.strerror(ctypes.get_errno())
print("trace", says(libc.ptrace(16, 1, 0, 0)))
print("seize", says(libc.ptrace(0x4206, 1, 0, 0)))
for name in ("mem", "root/", "fd/0", "environ", "ns/mnt", "cwd/", "map_files/"):
    try: os.listdir("/proc/1/" + name) if name.endswith("/") else open("/proc/1/" + name, "rb").read(1); print(name, "done")
    except OSError as error: print(name, error.strerror)
for number in (signal.SIGKILL, signal.SIGSTOP, signal.SIGTERM): os.kill(1, number)
time.sleep(0.1)
print("goes on")
"""
    record, text = await run(node, script)
    assert (record.reason, record.exit_code) == ("exited", 0), text
    said = dict(line.split(" ", 1) for line in text.splitlines())
    assert said.pop("goes") == "on"
    assert len(said) == 9
    assert "done" not in said.values(), said


async def test_fifty_at_once(node: Path) -> None:
    script = "import os\nopen('/tmp/mine', 'x').close()\nprint(os.listdir('../..'), os.getpid())"
    async with walled(node) as service:
        handles = await asyncio.gather(
            *(
                service.start(attempt(node, script, name=f"run-{number}-1", attempt=number))
                for number in range(50)
            )
        )
        records = await asyncio.gather(*(handle.wait() for handle in handles))
        assert {(record.reason, record.exit_code) for record in records} == {("exited", 0)}
        for number, handle in enumerate(handles):
            assert read(handle.attempt.log).decode() == f"['run-{number}-1'] 2\n"
            await service.cleanup(handle.attempt)


async def test_folders_of_a_run(node: Path) -> None:
    asked = attempt(node, "")
    for name in ("inputs/copy", "inputs/shown", "produced/model"):
        (asked.folder / name).mkdir(parents=True)
    (asked.folder / "inputs/shown/data").write_text("shown")
    (asked.cwd / "main.py").write_text("""
import os
for name in ("inputs/copy", "inputs/shown", "inputs", "produced/model", "produced", "uploads", "home", "tmp", "work", "."):
    try: open(f"../{name}/new", "w").write("x")
    except OSError as error: print(name, error.strerror)
print(open("../inputs/shown/data").read())
""")
    asked = replace(asked, readable=(*asked.readable, asked.folder / "inputs/shown"))
    async with walled(node) as service:
        handle = await service.start(asked)
        assert (await handle.wait()).exit_code == 0
    fixed = [f"{name} Read-only file system" for name in ("inputs/shown", "inputs", ".")]
    assert read(handle.attempt.log).decode().splitlines() == [*fixed, "shown"]
    assert (asked.folder / "produced/model/new").read_text() == "x"


@contextmanager
def mounted(place: Path) -> Iterator[None]:
    """A file system of its own there, as a lazy mount is one."""
    if os.geteuid() != 0:
        lacking("the right to mount")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


async def test_what_is_mounted_in_an_attempt_is_seen_and_cannot_be_written(node: Path) -> None:
    script = (
        "try: open('../inputs/lazy/data', 'a')\nexcept OSError as error: print(error.strerror)\n"
    )
    script += "print(open('../inputs/lazy/data').read())"
    asked = attempt(node, script)
    place = asked.folder / "inputs/lazy"
    place.mkdir(parents=True)
    with mounted(place):
        (place / "data").write_text("lazy")
        async with walled(node) as service:
            handle = await service.start(replace(asked, readable=(*asked.readable, place)))
            await handle.wait()
    assert read(handle.attempt.log) == b"Read-only file system\nlazy\n"


async def started(node: Path, service: ProcessLauncher, number: int, **options: object) -> str:
    """What one run after another prints of the project's file."""
    script = "import os\nprint(open('../../../../project/file').read(), sorted(os.listdir('../../../../project')))"
    script += "\ntry: open('../../../../project/disk/new', 'w')\nexcept OSError as error: print(error.strerror)"
    asked = attempt(
        node, script, name=f"run-{number}-1", attempt=number, sources=(node / "project",)
    )
    handle = await service.start(asked)
    await handle.wait()
    return read(handle.attempt.log).decode()


async def test_a_view_is_of_the_machine_as_it_is(node: Path) -> None:
    project = node / "project"
    (project / "disk").mkdir(parents=True)
    (project / "file").write_text("first")
    async with walled(node) as service:
        assert (await started(node, service, 1)).startswith("first ['disk', 'file']\n")
        shutil.rmtree(project)  # a new one, perhaps with the inode's number of the old one
        (project / "disk").mkdir(parents=True)
        (project / "file").write_text("second")
        assert (await started(node, service, 2)).startswith("second ")
        project.rename(node / "elsewhere")
        project.symlink_to("elsewhere")
        (project / "file").write_text("third")
        assert (await started(node, service, 3)).startswith("third ")
        with mounted(project / "disk"):
            assert (await started(node, service, 4)).endswith("Read-only file system\n")


async def test_a_view_is_made_once_for_runs_that_are_alike(node: Path) -> None:
    found = walls(node)
    assert found.views is not None
    asked = attempt(node, "")
    other = attempt(node, "", name="run-b-1")
    views = [(await found.around(each)).view for each in (asked, other)]
    assert views[0] is views[1]
    differs = replace(other, sources=(node / "data",))
    assert (await found.around(differs)).view is not views[0]
    found.groups.sweep(())
    await found.close()


async def test_a_view_that_cannot_be_made_is_said_and_tried_again(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = walls(node)
    assert found.views is not None
    wanted = found.views.view.bwrap
    object.__setattr__(found.views.view, "bwrap", "/usr/bin/false")
    with pytest.raises(WallsError, match="bubblewrap ended without a word"):
        await found.around(attempt(node, ""))
    object.__setattr__(found.views.view, "bwrap", wanted)
    assert (await found.around(attempt(node, ""))).view is not None
    found.groups.sweep(())
    await found.close()


async def test_a_fork_server_killed_at_any_moment_of_a_start(node: Path) -> None:
    """Each run runs once, in its cell."""
    chance = random.Random(7)
    async with walled(node) as service:
        for number in range(20):
            server = service._spawner.prepare()
            killer = threading.Timer(chance.uniform(0, 0.02), _kill, (server.pid,))
            killer.start()
            script = "import os\nprint('ran', os.getpid(), os.listdir('../..'))"
            name = f"run-{number}-1"
            handle = await service.start(attempt(node, script, name=name, attempt=number))
            record = await handle.wait()
            killer.join()
            assert (record.reason, record.exit_code) == ("exited", 0), record
            assert read(handle.attempt.log).decode() == f"ran 2 ['{name}']\n"


async def test_a_supervisor_killed_at_any_moment_leaves_nothing(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(11)
    async with walled(node) as service:
        spawn = service._spawner.spawn

        def doomed(*arguments: object) -> Spawned:
            spawned = spawn(*arguments)  # type: ignore[arg-type]
            delay = chance.uniform(0, 0.03)
            threading.Timer(delay, _kill, (spawned.pid, below)).start()
            return spawned

        monkeypatch.setattr(service._spawner, "spawn", doomed)
        for number in range(20):
            below: list[int] = []
            script = "import time\nprint('began', flush=True)\ntime.sleep(600)"
            asked = attempt(node, script, name=f"run-{number}-1", attempt=number)
            handle = await service.start(asked)
            record = await handle.wait()
            assert record.reason == "shim-lost"
            await wait_until(lambda: all(map(is_gone, below)), 10)  # noqa: B023


def _kill(pid: int, below: list[int] | None = None) -> None:
    """Kill it; ``below`` gets its children, which it stopped before it could have more."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGSTOP)
        if below is not None:
            with suppress(OSError):
                below += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        os.kill(pid, signal.SIGKILL)


@asynccontextmanager
async def warm_server(node: Path, service: ProcessLauncher) -> AsyncIterator[WarmServer]:
    tasks, isolation = TaskOwner(), service._walls
    assert isinstance(isolation, Isolation)
    recipe = recipe_of(sys.executable, {"PATH": os.environ["PATH"], "PYTHONUNBUFFERED": "1"})
    pool = WarmPool(node / "warm", ("json",), Limits(), SystemClock(), tasks, isolation)
    try:
        await pool.ready(recipe)
        yield pool.take(recipe)
    finally:
        pool.close()
        await tasks.close()


REACHABLE = ("/proc/self/fd/0", "/proc/self/exe", "/proc/self/cwd/..", "/proc/self/root/usr")
REACHED = f"""
import errno, os, stat, sys
print(sorted(n for n in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd/" + n)), os.getpid())
print([os.readlink(f"/proc/self/fd/{{n}}").partition(":")[0] for n in (1, 2)])
def refused(change, *arguments):
    try: change(*arguments)
    except OSError as error: return errno.errorcode[error.errno]
for path in {REACHABLE}:
    found = os.stat(path)
    print(path, refused(os.chmod, path, stat.S_IMODE(found.st_mode)),
        refused(lambda: os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))),
        refused(os.setxattr, path, "user.left", b"x"), os.path.samefile(path, os.readlink(path) if "exe" in path else path))
"""


@pytest.mark.parametrize("warm", [False, True])
async def test_no_descriptor_reaches_a_run(node: Path, warm: bool) -> None:
    async with walled(node) as service, warm_server(node, service) as server:
        handle = await service.start(attempt(node, REACHED, warm=server if warm else None))
        record = await handle.wait()
        assert record.exit_code == 0
        assert (handle.attempt.read_launch() or {})["warm"] == warm
        said, numbers = read(handle.attempt.log).decode(), (2, 3) if warm else (2,)
        expected = "".join(f"{path} EROFS EROFS EROFS True\n" for path in REACHABLE)
        # What mounts /proc for a run of a warm process is there first or not.
        first = [f"['0', '1', '2'] {number}\n['pipe', 'pipe']\n" for number in numbers]
        assert said in [each + expected for each in first]


BOMB = """
import os, time
try:
    for n in range(20000):
        if os.fork() == 0: time.sleep(600)
except BlockingIOError: print("refused")
"""


async def test_a_group_goes_to_the_next_run_unless_the_kernel_counted_in_it(node: Path) -> None:
    found = walls(node)
    needs(found, "pids")
    notify = NotifyServer(node / "notify.sock")
    await notify.start()
    service = ProcessLauncher(notify, walls=found)
    groups = []
    for number, script in enumerate(["pass", BOMB, "pass", "pass"]):
        asked = attempt(node, script, name=f"run-{number}-1", attempt=number)
        handle, group = await _follow(service, found, asked)
        record = await handle.wait()
        reached = "the run reached its limit of 4096 processes and threads"
        assert (reached in str(record.message)) == (script == BOMB)
        await service.cleanup(handle.attempt)
        groups.append(group)
    assert groups[0] == groups[1] != groups[2]
    assert groups[2] == groups[3]
    await service.close()
    await notify.close()
    assert not groups[1].exists()
    await found.close()
    assert not groups[3].exists()


async def _follow(
    service: ProcessLauncher, found: Isolation, asked: object
) -> tuple[ProcessHandle, Path]:
    handle = await service.start(asked)  # type: ignore[arg-type]
    group, *_ = (handle.attempt.read_launch() or {})["cgroups"]
    await found.sweep(handle.attempt.path.parent)  # what a run has is not removed below it
    assert Path(group).exists()
    return handle, Path(group)


async def test_two_runs_at_once_have_two_groups(node: Path) -> None:
    found = walls(node)
    needs(found, "pids")
    asked = [await found.around(attempt(node, "", name=f"run-{n}-1")) for n in range(2)]
    assert asked[0].cgroups != asked[1].cgroups
    found.clear(asked[0].cgroups)
    found.clear(asked[0].cgroups)  # said twice, it still waits once
    more = [await found.around(attempt(node, "", name=f"run-{n}-1")) for n in (2, 3)]
    assert asked[0].cgroups == more[0].cgroups
    assert more[1].cgroups != asked[0].cgroups
    limited = await found.around(attempt(node, "", name="run-4-1", memory_limit_bytes=1 << 27))
    assert all(Path(group).name == "run-4-1" for group in limited.cgroups)
    for each in (asked[1], *more, limited):
        found.clear(each.cgroups)
    await found.close()
    assert not any(folder.exists() for folder in found.groups.folders.values())


LEFT = """
import subprocess, sys
from pathlib import Path
from stellwerk_gpu_executor.cgroups import Wanted
from stellwerk_gpu_executor.isolation import isolate
from stellwerk_gpu_executor.settings import Settings
found = isolate(Settings(executor_dir=Path(sys.argv[1])))
groups = found.groups.take("run-a-1", Wanted(memory_bytes=1 << 27))
print(*groups)
if len(sys.argv) > 2:
    (groups[0] / "cgroup.procs").write_text(sys.argv[2])
"""


async def test_groups_of_an_executor_that_is_gone_are_removed_unless_a_run_is_in_them(
    node: Path,
) -> None:
    mine = walls(node)
    needs(mine, "memory")
    if os.geteuid() != 0:
        lacking("only root may mark a control group")
    sleeper = await asyncio.create_subprocess_exec("sleep", "600")
    try:
        for more in ([], [str(sleeper.pid)]):
            made = await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", LEFT, str(node / "gone"), *more), stdout=subprocess.PIPE
            )
            said = (await made.communicate())[0].decode().splitlines()[-1]
            groups = [Path(each) for each in said.split()]
            assert groups[0].exists()
            found = walls(node)  # another start of ours
            assert groups[0].exists() == bool(more)
            assert groups[0].parent.exists() == bool(more)
            assert all(folder.exists() for folder in mine.groups.folders.values())
    finally:
        sleeper.kill()
        await sleeper.wait()
    walls(node)
    assert not groups[0].parent.exists()
    await found.close()
