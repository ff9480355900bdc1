"""Runs in a real sandbox: what they see, what they may use, and that nothing else is different."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from real_attempts import is_gone, log_holds, read
from structlog.testing import capture_logs
from walled_attempts import attempt, lay_out, needs, run, walled, walls

import stellwerk_shim
from stellwerk_gpu_executor import processes
from stellwerk_gpu_executor.cgroups import Wanted
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.isolation import isolate
from stellwerk_gpu_executor.sandbox import Base, prefixes
from stellwerk_gpu_executor.settings import Settings
from stellwerk_gpu_executor.views import make
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.host import lacking
from stellwerk_shim import cell

MIB = 1024 * 1024


@pytest.fixture
def node(tmp_path: Path) -> Path:
    return lay_out(tmp_path)


LOOK = """
import json, os, socket
def may(path, write=False):
    try:
        if write:
            open(path, "w").close()
        return os.listdir(path) if os.path.isdir(path) else open(path).read(40)
    except OSError as error:
        return error.strerror
executor = os.path.abspath("../../..")
lookups = {
    "attempts": may(executor + "/attempts"), "executor": may(executor),
    "other": may(executor + "/attempts/other-1/work/weights"),
    "secrets": may(executor + "/../secrets/s3.json"), "shadow": may("/etc/shadow"), "home": may("/home"),
    "usr": may("/usr/new", True), "log": may("../std.log", True), "lease": may("../lease", True),
    "tmp": may("/tmp"), "passwd": may("/etc/passwd")[:4], "processes": sorted(p for p in os.listdir("/proc") if p.isdigit()),
    "status": {l.split(":")[0]: l.split()[1] for l in open("/proc/self/status") if l[:6] in ("CapEff", "CapBnd", "NoNewP")},
    "python": may(os.path.dirname(os.__file__) + "/new", True), "uid": os.getuid(), "interfaces": [n for _, n in socket.if_nameindex()],
}
open("/tmp/mine", "w").write("x"); open("outside-nothing", "w").write("x")
print(json.dumps(lookups))
"""


async def test_a_run_sees_the_system_and_itself(node: Path) -> None:
    record, text = await run(node, LOOK)
    assert (record.reason, record.exit_code) == ("exited", 0), text
    seen = json.loads(text)
    assert seen["attempts"] == ["run-a-1"]
    assert seen["executor"] == ["attempts"]
    for hidden in ("other", "secrets", "shadow", "home"):
        assert seen[hidden] == "No such file or directory", hidden
    for fixed in ("usr", "log", "lease", "python"):
        assert seen[fixed] == "Read-only file system", fixed
    assert "mine" not in os.listdir("/tmp")  # noqa: PTH208 - the machine's
    assert (seen["passwd"], seen["uid"]) == ("root", os.getuid())
    assert seen["processes"] == ["1", "2"]  # what holds the cell, the run
    assert set(seen["status"].values()) == {"0000000000000000", "1"}
    assert seen["interfaces"] == [name for _, name in socket.if_nameindex()]


async def test_a_platform_inside_the_system_is_hidden(node: Path) -> None:
    shown = {"sandbox_readable": (node,)}
    record, text = await run(
        node, "import os; print(sorted(os.listdir('../../../..')))", settings=shown
    )
    assert record.exit_code == 0, text
    assert "'executor'" in text
    script = "import os\nfor n in ('secrets', 'data', 'environments'): print(os.listdir('../../../../' + n))"
    _, text = await run(node, script, settings=shown)
    assert text == "[]\n" * 3


async def test_packages_of_the_users_own_python_are_seen_and_nothing_beside_them(
    node: Path,
) -> None:
    (node / "project").mkdir()
    (node / "project/mine.py").write_text("print('imported')\n")
    script = f"""
import os, sys
sys.path.append({str(node / "project")!r})
import mine
print(sorted(os.listdir({str(node)!r})), os.listdir({str(node / "secrets")!r}))
"""
    record, text = await run(node, script, sources=(node / "project",))
    assert "imported" in text, text
    assert record.exit_code == 1  # no secrets
    assert "No such file or directory" in text
    _, text = await run(node, script, name="run-b-1", sources=(node,))
    assert text.endswith(" []\n"), text  # in sight by their folder, and covered


async def test_a_run_does_not_choose_what_it_sees(node: Path) -> None:
    (node / "etc-too").symlink_to("/etc")
    (node / "beside").mkdir()
    (node / "beside/mine").write_text("mine")
    (node / "bin").mkdir()
    (node / "bin/python").symlink_to(sys.executable)
    attempts = node / "executor/attempts"
    wanted = [attempts, node / "beside/../executor/attempts", node / "etc-too", node / "beside"]
    script = f"""
import os
for path in ({str(attempts / "other-1")!r}, {str(node / "beside")!r}, {str(node / "etc-too")!r}, "/etc/shadow"):
    print(os.path.exists(path))
"""
    chosen = {"LD_LIBRARY_PATH": ":".join(map(str, wanted)), "VIRTUAL_ENV": str(node)}
    record, text = await run(node, script, env=chosen)
    assert (record.exit_code, text) == (0, "False\n" * 4)
    record, text = await run(node, script, argv=[str(node / "bin/python"), "main.py"])
    assert record.reason == "launch-failed", text  # a command's folder is not seen for its sake


async def test_not_even_an_interpreter_shows_what_is_hidden(node: Path) -> None:
    (node / "link").symlink_to(node / "executor")
    (node / "beside").mkdir()
    (node / "beside/mine").write_text("mine")
    (node / "name").symlink_to("beside")
    attempts = node / "executor/attempts"
    sources = [attempts, node / "beside/../executor/attempts", node / "link/attempts"]
    sources += [Path("/etc"), Path("/proc/1"), Path("/"), Path.home(), node / "name"]
    script = f"""
import os
for path in ({str(attempts / "other-1")!r}, {str(node / "link/attempts")!r}, "/etc/shadow", "/proc/1/root/root/.ssh", {str(Path.home())!r} + "/.bashrc"):
    print(os.path.exists(path))
print(open({str(node / "name/mine")!r}).read(), open({str(node / "beside/mine")!r}).read())
"""
    record, text = await run(node, script, sources=tuple(sources))
    assert (record.exit_code, text) == (0, "False\n" * 5 + "mine mine\n")


async def test_hidden_folders_are_covered_by_every_name(node: Path) -> None:
    (node.parent / f"{node.name}-link").symlink_to(node)
    link = node.parent / f"{node.name}-link"
    script = f"import os\nprint(os.listdir({str(link / 'secrets')!r}), os.listdir({str(node / 'secrets')!r}))"
    record, text = await run(node, script, sources=(link,))
    assert (record.exit_code, text) == (0, "[] []\n")


async def test_no_network_where_the_operator_says_so(node: Path) -> None:
    script = "import socket\nprint([n for _, n in socket.if_nameindex()])\n"
    script += "s = socket.create_server(('127.0.0.1', 0)); socket.create_connection(s.getsockname()); print('own loopback')"
    record, text = await run(node, script, settings={"sandbox_network": "none"})
    assert record.exit_code == 0, text
    assert text == "['lo']\nown loopback\n"


ENDS = [
    ("import sys; sys.exit(137)", (137, None)),
    ("import os; os.kill(os.getpid(), 9)", (None, 9)),
    ("import os; os.kill(os.getpid(), 11)", (None, 11)),
    ("import os; os.abort()", (None, 6)),
    ("raise SystemExit('words')", (1, None)),
]


@pytest.mark.parametrize(("script", "end"), ENDS)
async def test_ends_are_exact(node: Path, script: str, end: tuple[int | None, int | None]) -> None:
    record, _ = await run(node, script)
    assert (record.exit_code, record.signal, record.oom) == (*end, False)


async def test_a_program_that_is_not_there_is_said_as_ever(node: Path) -> None:
    record, _ = await run(node, "", argv=["/usr/bin/no-such"])
    assert record.reason == "launch-failed"
    assert record.message == "cannot start '/usr/bin/no-such': No such file or directory"


async def test_forbidden_calls_fail_and_the_run_goes_on(node: Path) -> None:
    script = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
def says(result): return "done" if result == 0 else os.strerror(ctypes.get_errno())
print("unshare", says(libc.unshare(0x10000000)))
print("mount", says(libc.mount(b"none", b"/mnt", b"tmpfs", 0, None)))
print("umount", says(libc.umount2(b"/etc", 2)))
try: os.setuid(12)
except OSError as error: print("setuid", error.strerror)
print("goes on")
"""
    record, text = await run(node, script)
    assert record.exit_code == 0
    said = dict(line.split(" ", 1) for line in text.splitlines())
    assert said.pop("goes") == "on"
    assert "done" not in said.values(), said


STAYS = """
import os, signal, subprocess, sys, time
from stellwerk_agent import Run
Run.get_context().log("up", 1)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0: time.sleep(600)
    os._exit(0)
signal.signal(signal.SIGTERM, lambda *a: (print("asked", flush=True), sys.exit(3)))
print("ready", flush=True)
while True:
    if os.path.exists("go"): sys.exit(0)
    time.sleep(0.02)
"""


def below(handle: ProcessHandle) -> list[int]:
    """Every process of the run, as this machine counts them."""
    shim = handle.attempt.read_shim()
    assert shim is not None
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [shim.pid]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found


async def test_cancel_asks_and_then_takes_everything(node: Path) -> None:
    async with walled(node) as service:
        handle = await service.start(attempt(node, STAYS))
        await log_holds(handle, b"ready")
        processes = below(handle)
        handle.stop("canceled", 10.0)
        record = await handle.wait()
        assert (record.reason, record.exit_code) == ("canceled", 3)
        assert read(handle.attempt.log).endswith(b"asked\n")
        assert b'"n":"up"' in read(handle.attempt.records)
        assert len(processes) >= 4  # its supervisor, what holds the cell, the run, its daemon
        assert all(map(is_gone, processes))


async def test_it_outlives_the_executor_and_is_adopted(node: Path) -> None:
    async with walled(node) as service:
        handle = await service.start(attempt(node, STAYS))
        await log_holds(handle, b"ready")
    async with walled(node) as service:
        adopted = await service.adopt(handle.attempt)
        assert adopted is not None
        assert adopted.alive()
        processes = below(adopted)
        (handle.attempt.path / "work/go").touch()
        record = await adopted.wait()
        assert (record.reason, record.exit_code) == ("exited", 0)
        assert all(map(is_gone, processes))  # the daemon it left, too
        await service.cleanup(adopted.attempt)
        assert not adopted.attempt.path.exists()


async def test_the_kernel_ends_all_of_it_with_its_supervisor(node: Path) -> None:
    async with walled(node) as service:
        handle = await service.start(attempt(node, STAYS))
        await log_holds(handle, b"ready")
        processes = below(handle)
        os.kill(processes[0], signal.SIGKILL)
        record = await handle.wait()
        assert record.reason == "shim-lost"
        await wait_until(lambda: all(map(is_gone, processes)), 10)


HOG = "data = bytearray()\nwhile True: data += bytes(8 << 20)\n"


async def test_a_cell_whose_processes_were_killed_has_ended(node: Path) -> None:
    views = walls(node).views
    assert views is not None
    view = make(views.view.command(Base(str(node / "executor/attempts"))))
    wanted = {"root": str(node), "mounts": [], "below_tmp": [], "network": True}
    script = f"""
import os, signal, sys
sys.path.insert(0, {str(Path(stellwerk_shim.__file__).parent.parent)!r})
from stellwerk_shim import tree
from stellwerk_shim.cell import Cell
import ctypes
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # as a supervisor, it reaps what its children leave
cell = Cell({wanted!r}, {view.descriptors!r})
cell.make()
tree.kill_descendants(os.getpid())
try:
    while os.waitpid(-1, 0): pass
except ChildProcessError:
    cell.end(60)
    print("ended")
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=False,
        pass_fds=view.descriptors,
    )
    assert (done.stdout, done.stderr) == ("ended\n", "")


async def test_memory_over_the_limit_is_told(node: Path) -> None:
    needs(walls(node), "memory")
    record, _ = await run(node, HOG, memory_limit_bytes=96 * MIB)
    assert (record.reason, record.oom, record.signal) == ("oom", True, 9)
    assert "more memory than its limit of 100663296 bytes" in str(record.message)


async def test_memory_that_only_costs_a_child_is_told_as_well(node: Path) -> None:
    needs(walls(node), "memory")
    script = f"import subprocess, sys\ndone = subprocess.run([sys.executable, '-c', {HOG!r}])\nprint(done.returncode)"
    record, text = await run(node, script, memory_limit_bytes=96 * MIB)
    assert (record.reason, record.exit_code, record.oom, text) == ("exited", 0, True, "-9\n")
    assert "ended 1 of its processes" in str(record.message)


async def test_a_fork_bomb_meets_a_wall(node: Path) -> None:
    needs(walls(node), "pids")
    script = """
import os, time
try:
    for n in range(20000):
        if os.fork() == 0: time.sleep(600)
except BlockingIOError: print("refused", n > 1000)
"""
    record, text = await run(node, script)
    assert text == "refused True\n"
    assert "limit of 4096 processes and threads" in str(record.message)


async def test_cores_are_shared_out(node: Path) -> None:
    needs(walls(node), "cpu")
    async with walled(node) as service:
        handle = await service.start(attempt(node, "while True: pass", cpus=0.25))
        launch = handle.attempt.read_launch() or {}
        await wait_until(lambda: throttled(launch["cgroups"]), 60)
        handle.stop("canceled", 0.0)
        await handle.wait()
        await service.cleanup(handle.attempt)


def throttled(groups: list[str]) -> bool:
    """Whether the kernel has made one of them wait for its share of the cores."""
    found = [Path(group, "cpu.stat") for group in groups]
    words = " ".join(path.read_text() for path in found if path.exists()).split()
    return int(words[words.index("nr_throttled") + 1]) > 0


async def test_nothing_is_left_of_its_groups(node: Path) -> None:
    found = walls(node)
    await run(node, "pass", memory_limit_bytes=96 * MIB, cpus=1)
    left = [path for folder in set(found.groups.folders.values()) for path in folder.glob("run-*")]
    assert left == []
    found = walls(node)  # the one within run() has closed: version 2 wants its folder made again
    made = found.groups.make("gone-1", Wanted(memory_bytes=MIB, cpus=1))
    await found.sweep(node / "executor/attempts")
    assert not any(path.exists() for path in made)
    await found.close()
    assert not any(folder.exists() for folder in found.groups.folders.values())


def test_what_is_asked_for_is_said(node: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    settings = {"executor_dir": node / "executor"}
    auto = isolate(Settings(**settings))
    assert (auto.views, auto.refusal) == (None, None)
    refused = isolate(Settings(**settings, sandbox="require")).refusal
    assert refused == (
        "this node starts no run without a sandbox (its operator set STELLWERK_SANDBOX=require) and has none: "
        "bubblewrap is not installed (apt-get install bubblewrap)"
    )
    off = isolate(Settings(**settings, sandbox="off"))
    assert (off.views, off.groups.folders, off.refusal) == (None, {}, None)


def test_a_bubblewrap_that_does_not_work_is_no_sandbox(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = node / "bwrap"
    broken.write_text("#!/bin/sh\necho 'No permissions to create new namespace' >&2; exit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(shutil, "which", lambda name: str(broken))
    refused = isolate(Settings(executor_dir=node / "executor", sandbox="require")).refusal
    assert "does not work here: No permissions to create new namespace" in str(refused)


def test_the_interpreter_is_followed_to_its_installations(tmp_path: Path) -> None:
    (tmp_path / "base/bin").mkdir(parents=True)
    (tmp_path / "venv/bin").mkdir(parents=True)
    (tmp_path / "base/bin/python3").touch()
    (tmp_path / "venv/bin/python").symlink_to("../../base/bin/python3")
    assert prefixes(tmp_path / "venv/bin/python") == [tmp_path / "venv", tmp_path / "base"]
    assert Path("/usr") not in prefixes(Path("/usr/bin/python3"))
    assert Path(sys.prefix) in prefixes(Path(sys.executable))


async def test_groups_of_the_executor_are_not_a_run_s(node: Path) -> None:
    if os.geteuid() != 0:
        lacking("only root may change its groups")
    before = os.getgroups()
    os.setgroups([12345])
    try:
        record, text = await run(node, "import os; print(os.getgroups())")
    finally:
        os.setgroups(before)
    assert (record.exit_code, text) == (0, "[]\n")


def test_no_sandbox_where_one_would_be_is_a_warning(
    node: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stellwerk_gpu_executor.isolation.shutil.which", lambda name: None)
    with capture_logs() as told:
        found = isolate(Settings(executor_dir=node / "executor"))
    found.groups.close()
    assert found.views is None
    (warning,) = [each for each in told if each["log_level"] == "warning"]
    assert "bubblewrap is not installed" in warning["missing"]


def test_silence_is_no_success(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cell.Cell, "make", lambda _: None)
    monkeypatch.setattr(cell.Cell, "enter", lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert cell.probe("{}", ()) == "the first process of a cell ended with -9"


def test_descriptors_above_1023(node: Path) -> None:
    _, hard = limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    taken = [os.open(os.devnull, os.O_RDONLY) for _ in range(1024)]
    try:
        walls(node).groups.close()
        own = os.pidfd_open(os.getpid())
        taken.append(own)
        assert own > 1023
        assert not processes.has_ended(own)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
