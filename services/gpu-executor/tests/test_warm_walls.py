"""A warm process is behind the walls of its runs, and a run in one is as apart as any other."""

import json
import os
import random
import signal
import sys
import threading
import venv
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from real_attempts import is_gone, log_holds, read
from walled_attempts import needs, walled
from walled_warm import a_node, child_of, go_on, inside, ready, warm

from stellwerk_gpu_executor.forkserver import Spawned
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.testing import wait_until

LOOKS = """
import ctypes, os, socket
def may(act):
    try: return act()
    except OSError as error: return error.strerror
def status(): return {l.split(":")[0]: l.split()[1] for l in open("/proc/self/status") if l[:6] in ("CapEff", "CapPrm", "CapBnd", "NoNewP")}
def mount(): return "mounted" if ctypes.CDLL(None).mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0 else "refused"
executor = EXECUTOR
SEEN = {
    "executor": may(lambda: os.listdir(executor)), "attempts": sorted(os.listdir(executor + "/attempts")),
    "other": may(lambda: open(executor + "/attempts/other-1/work/weights").read()),
    "secrets": may(lambda: open(executor + "/../secrets/s3.json").read()),
    "home": may(lambda: os.listdir("/home")), "usr": may(lambda: open("/usr/new", "w")),
    "python": may(lambda: open(os.path.dirname(os.__file__) + "/new", "w")),
    "interpreter": may(lambda: os.chmod("/proc/self/exe", 0o755)),
    "own": may(lambda: open("left", "w").close()), "tmp": may(lambda: open("/tmp/left", "w").close()),
    "code": may(lambda: os.listdir(executor + "/attempts/shim")), "shadow": may(lambda: open("/etc/shadow").read(1)),
    "processes": [p for p in os.listdir("/proc") if p.isdigit() and int(p) != os.getpid()],
    "status": status(), "mount": mount(), "interfaces": [n for _, n in socket.if_nameindex()],
    "groups": [l.split(":")[2].strip() for l in open("/proc/self/cgroup") if "pids" in l],
}
"""


async def test_packages_are_loaded_behind_the_walls_of_runs(tmp_path: Path) -> None:
    async with a_node(tmp_path, LOOKS, sandbox="require", sandbox_network="none") as node:
        record, text = await node.run("import json, looks; print(json.dumps(looks.SEEN))")
        assert record.exit_code == 0, text
        seen = json.loads(text)
        assert seen["executor"] == ["attempts"]
        assert seen["attempts"] == ["shim", "warm"], "its own home and our code"
        for hidden in ("other", "secrets", "home", "shadow"):
            assert seen[hidden] == "No such file or directory", hidden
        for fixed in ("usr", "python", "interpreter"):
            assert seen[fixed] == "Read-only file system", fixed
        assert (seen["own"], seen["tmp"], seen["mount"]) == (None, None, "refused")
        assert seen["processes"] == ["1"]
        rights = {seen["status"][name] for name in ("CapEff", "CapPrm", "CapBnd")}
        assert rights == {f"{1 << 21:016x}"}, "over processes that it makes, see ADR 0030"
        assert seen["status"]["NoNewPrivs"] == "1"
        assert seen["interfaces"] == ["lo"]
        left = {path.name for path in (tmp_path / "warm").rglob("left")}
        assert left == {"left"}


@pytest.mark.parametrize("sandbox", ["auto", "require"])
async def test_one_that_loads_no_packages_is_outside_only_where_nobody_minds(
    tmp_path: Path, sandbox: str
) -> None:
    """Its runs are behind the same walls either way, and cannot change its interpreter's file."""
    script = """
import os
print(os.getpid() < 4, os.getppid(), sorted(os.listdir('../..')))
for change in (lambda: os.chmod('/proc/self/exe', 0o755), lambda: open('/usr/new', 'w')):
    try: change()
    except OSError as error: print(error.strerror)
"""
    async with a_node(tmp_path, sandbox=sandbox) as node:
        recipe = replace(recipe_of(sys.executable, node.env), plain=True)
        await node.pool.ready(recipe)
        server = node.pool.take(recipe)
        assert server.walled == (sandbox == "require" or os.geteuid() != 0)
        _, text = await node.run(script, warm=server)
        assert text == "True 0 ['run-a-1']\n" + 2 * "Read-only file system\n"


async def test_an_environment_that_was_built_is_seen_in_the_platforms_folder(
    tmp_path: Path,
) -> None:
    async with a_node(tmp_path) as node:
        built = tmp_path / "environments/one"
        venv.create(built, symlinks=True, with_pip=False)
        venv.create(tmp_path / "environments/other", symlinks=True, with_pip=False)
        python = built / "bin/python"
        recipe = recipe_of(str(python), node.env)
        await node.pool.ready(recipe)
        server = node.pool.take(recipe)
        assert server.walled
        script = "import os, sys; print(sys.prefix, os.listdir(os.path.dirname(sys.prefix)))"
        options = {"python": python, "readable": (built,), "argv": [str(python), "main.py"]}
        _, text = await node.run(script, warm=server, **options)
        assert text == f"{built} ['one']\n"


async def test_the_in_run_library_is_there_from_the_beginning(tmp_path: Path) -> None:
    """A folder that an interpreter has not found at its start it does not look at again."""
    async with a_node(tmp_path) as node:
        agent = tmp_path / "executor/agent"
        agent.mkdir()
        (agent / "sitecustomize.py").write_text("import sys; sys.customized = True")
        (agent / "in_run.py").write_text("")
        node.env["PYTHONPATH"] = str(agent)
        script = "import in_run, sys; print(sys.customized, in_run.__file__)"
        said = []
        for number, warm in enumerate((await node.server(), None)):
            name, readable = f"run-{number}-1", (agent,)
            handle = await node.start(script, name, warm=warm, readable=readable)
            await handle.wait()
            said.append(read(handle.attempt.log).decode())
        assert said == [f"True {agent}/in_run.py\n"] * 2


async def test_a_warm_process_has_limits_of_its_own(tmp_path: Path) -> None:
    async with a_node(tmp_path, LOOKS) as node:
        assert isinstance(node.service._walls, Isolation)
        needs(node.service._walls, "pids")
        _, text = await node.run("""
import json, looks
now = [l.split(":")[2].strip() for l in open("/proc/self/cgroup") if "pids" in l]
print(json.dumps([looks.SEEN["groups"], now]))""")
        (before,), (now,) = json.loads(text)
        assert "/warm-" in before
        assert "/usual-" in now


async def test_a_run_has_nothing_of_its_warm_process_but_what_is_loaded(tmp_path: Path) -> None:
    script = """
import json, os
executor = os.path.abspath("../../..")
status = {l.split(":")[0]: l.split()[1] for l in open("/proc/self/status") if l[:6] in ("CapEff", "CapPrm", "CapBnd", "NoNewP")}
users = open("/proc/sys/user/max_user_namespaces").read().strip()
print(json.dumps([os.listdir(executor + "/attempts"), os.listdir("/tmp"), os.listdir(os.environ["HOME"]), status, users,
    sorted(os.listdir("/proc/self/fd"))[:3], os.getppid()]))
"""
    async with a_node(tmp_path, "open('/tmp/left', 'w'); open('left', 'w')") as node:
        record, text = await node.run(script)
        assert record.exit_code == 0, text
        attempts, tmp, home, status, users, _, parent = json.loads(text)
        assert (attempts, "left" in tmp, home) == (["run-a-1"], False, [])
        assert set(status.values()) == {"0" * 16, "1"}
        assert (users, parent) == ("0", 0)


async def test_two_runs_of_one_warm_process_are_apart(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        first = await ready(node, "run-a-1")
        record, text = await node.run(
            """
import os, signal
print([p for p in os.listdir('/proc') if p.isdigit() and int(p) not in (1, os.getpid())], os.listdir('../..'))
for pid in range(2, 300):
    if pid != os.getpid():
        try: os.kill(pid, signal.SIGKILL)
        except ProcessLookupError: pass
""",
            name="run-b-1",
        )
        assert (record.exit_code, text) == (0, "[] ['run-b-1']\n")
        assert first.alive()
        go_on(first)
        assert (await first.wait()).exit_code == 0


ENDS = {
    "exits": ("import sys; sys.exit(3)", 3, None),
    "leaves at once": ("os._exit(4)", 4, None),
    "is killed": ("import signal; os.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL),
    "aborts": ("os.abort()", None, signal.SIGABRT),
    "runs on": ("print('done')", 0, None),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("when", ["there", "gone"])
async def test_how_a_run_ended_is_known_whether_its_warm_process_is_there(
    tmp_path: Path, end: str, when: str
) -> None:
    script, exit_code, number = ENDS[end]
    async with a_node(tmp_path) as node:
        handle = await ready(node, "run-a-1", script)
        children = list[int]()
        if when == "gone":
            pid = (await node.server()).pid
            children += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            node.drop()
            await wait_until(lambda: is_gone(pid), 10)
        go_on(handle)
        record = await handle.wait()
        assert (record.exit_code, record.signal) == (exit_code, number), record
        assert warm(handle)
        assert is_gone(child_of(handle))
        assert all(map(is_gone, children)), "nobody waits for a run that is not reaped"
        assert (record.peak_rss_bytes > 0) == (when == "there")
        assert record.cpu_s < 10


async def test_all_that_a_run_started_ends_with_it(tmp_path: Path) -> None:
    script = """
import os, time
for _ in range(3):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0: time.sleep(600)
        os._exit(0)
print('ready', flush=True)
"""
    async with a_node(tmp_path) as node:
        record, _ = await node.run(script)
        assert record.exit_code == 0
        assert inside(tmp_path) == 1


async def test_a_stop_has_grace_and_then_an_end(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        polite = await ready(node, "run-a-1")
        polite.stop("canceled", 30.0)
        record = await polite.wait()
        assert (record.reason, record.signal) == ("canceled", signal.SIGTERM)
        deaf = await node.start(
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('ready', flush=True); time.sleep(600)",
            "run-b-1",
        )
        await log_holds(deaf, b"ready\n")
        deaf.stop("canceled", 0.1)
        record = await deaf.wait()
        assert (record.reason, record.signal) == ("canceled", signal.SIGKILL)


async def test_memory_is_measured_where_the_kernel_does_not_limit_it(tmp_path: Path) -> None:
    script = """
import os, time
if os.fork() == 0:
    held = bytearray(300_000_000)
    held[::4096] = b'x' * len(held[::4096])
time.sleep(60)
"""
    async with a_node(tmp_path) as node:
        walls = node.service._walls
        assert isinstance(walls, Isolation)
        walls.groups.folders.pop("memory", None)  # type: ignore[attr-defined]
        record, _ = await node.run(script, memory_limit_bytes=100_000_000)
        assert (record.reason, record.oom) == ("oom", True)
        assert "more than its limit of 100000000" in str(record.message)


async def test_a_supervisor_killed_at_any_moment_takes_its_run_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(13)
    async with a_node(tmp_path) as node:
        spawn = node.service._spawner.spawn
        kinds = set()

        def doomed(*arguments: object) -> Spawned:
            spawned = spawn(*arguments)  # type: ignore[arg-type]
            threading.Timer(chance.uniform(0, 0.06), _kill, (spawned.pid,)).start()
            return spawned

        monkeypatch.setattr(node.service._spawner, "spawn", doomed)
        for number in range(20):
            handle = await node.start("import time; time.sleep(600)", f"run-{number}-1")
            record = await handle.wait()
            assert record.reason == "shim-lost"
            kinds.add(handle.attempt.read_shim() is not None)
            await wait_until(lambda: inside(tmp_path) <= 1, 10)
            await node.service.cleanup(handle.attempt)
        assert True in kinds


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def test_a_warm_process_killed_at_any_moment_of_a_start(tmp_path: Path) -> None:
    """Each run runs once, its log is whole, nothing of it stays."""
    chance = random.Random(17)
    kinds = set()
    async with a_node(tmp_path) as node:
        for number in range(30):
            server = await node.server()
            late = number % 6 == 0  # however loaded this machine is, some begin warm
            killer = threading.Timer(chance.uniform(0, 0.06), _kill, (server.pid,))
            if not late:
                killer.start()
            handle = await node.start("print('began'); print('ended')", f"run-{number}-1")
            if late:
                killer.start()
            record = await handle.wait()
            killer.join()
            assert (record.reason, record.exit_code) == ("exited", 0), record
            assert read(handle.attempt.log) == b"began\nended\n"
            kinds.add(warm(handle))
            node.drop()
            await node.service.cleanup(handle.attempt)
        assert True in kinds


async def test_a_run_goes_on_without_executor_and_warm_process(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        handle = await ready(node, "run-a-1", "print('went on')")
        attempt_dir = handle.attempt
        node.pool.close()
        await node.service.close()
        async with walled(tmp_path) as service:
            adopted = await service.adopt(attempt_dir)
            assert adopted is not None
            go_on(adopted)
            record = await adopted.wait()
            assert (record.reason, record.exit_code) == ("exited", 0)
            assert read(attempt_dir.log) == b"ready\nwent on\n"


async def test_packages_that_do_not_let_themselves_be_loaded_keep_runs_cold(tmp_path: Path) -> None:
    async with a_node(tmp_path, "import os; os.kill(os.getpid(), 9)") as node:
        with pytest.raises(ColdError, match="ended while it was loading"):
            await node.server()
