"""The limit of memory of a warm process: it holds for that alone, and costs no run its own."""

import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from real_attempts import is_gone, read
from structlog.testing import capture_logs
from walled_attempts import needs
from walled_warm import Node, a_node, go_on, ready, warm

from stellwerk_gpu_executor.cgroups import Cgroups, Wanted
from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launching import WallsError
from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.testing import wait_until

MIB = 1 << 20
LIMIT = 96 * MIB
GROUPS = "[l.split(':')[2].strip() for l in open('/proc/self/cgroup') if ':memory:' in l or l[:2] == '0:']"
EATS = """
import os, signal
held = []
def eat(*_):
    while os.path.exists("eat"): held.append(b"x" * (4 << 20))
signal.signal(signal.SIGALRM, eat)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
"""
HOLDS = "held = b'x' * (200 << 20); print(len(held))"


@asynccontextmanager
async def limited(folder: Path, module: str = "") -> AsyncIterator[Node]:
    """A node whose warm processes may have LIMIT bytes."""
    async with a_node(folder, module) as node:
        isolation = node.service._walls
        assert isinstance(isolation, Isolation)
        needs(isolation, "memory")
        node.pool.limits = replace(node.pool.limits, memory_bytes=LIMIT)
        yield node


def groups_of(node: Node) -> list[Path]:
    walls = node.pool._warm[recipe_of(sys.executable, node.env)].walls
    assert walls is not None
    return [Path(group) for group in walls.groups]


def leave(groups: list[Path], size: int) -> None:
    """Limit the memory of a group to so much more than it has."""
    (group,) = [each for each in groups if (each / "memory.stat").exists()]
    usage, names = "memory.current", ["memory.max"]
    if not (group / usage).exists():
        usage, names = "memory.usage_in_bytes", ["memory.limit_in_bytes"]
        names += [path.name for path in group.glob("memory.memsw.limit_in_bytes")]
    limit = int((group / usage).read_text()) + size
    for name in names:
        (group / name).write_text(str(limit))


def members(groups: list[Path]) -> set[int]:
    return {int(pid) for group in groups for pid in (group / "cgroup.procs").read_text().split()}


def eat(node: Node) -> None:
    (home,) = [path for path in (node.folder / "warm").iterdir() if (path / "origins").exists()]
    (home / "eat").touch()


async def test_a_run_without_a_limit_has_none_in_a_warm_process_that_has_one(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path) as node:
        record, text = await node.run(f"print({GROUPS})\n{HOLDS}")
        assert (record.exit_code, record.oom) == (0, False), record
        assert "/usual-" in text
        assert "/warm-" not in text
        assert text.endswith(f"{200 * MIB}\n")
        assert not any("oom_kill 1" in told for told in events(node))


def events(node: Node) -> list[str]:
    names = ("memory.oom_control", "memory.events")
    files = [group / name for group in groups_of(node) for name in names]
    return [file.read_text() for file in files if file.exists()]


async def test_a_run_ends_for_its_own_limit_alone(tmp_path: Path) -> None:
    async with limited(tmp_path) as node:
        server = await node.server()
        handle = await node.start(HOLDS, memory_limit_bytes=128 * MIB)
        record = await handle.wait()
        assert (record.reason, record.oom) == ("oom", True)
        assert f"limit of {128 * MIB} bytes" in str(record.message)
        assert warm(handle)
        assert (await node.server()) is server
        _, text = await node.run("print('warm')", name="run-b-1")
        assert text == "warm\n"


async def test_a_run_without_a_limit_that_is_ended_is_told_that_the_machine_was_full(
    tmp_path: Path,
) -> None:
    async with limited(tmp_path) as node:
        handle = await ready(node, "run-a-1", HOLDS)
        own = (handle.attempt.read_launch() or {})["cgroups"]
        leave(list(map(Path, own)), 16 * MIB)  # as one above it might
        go_on(handle)
        record = await handle.wait()
        assert (record.reason, record.oom) == ("oom", True)
        assert record.message == "this machine ran out of memory and the kernel ended it"


async def test_packages_that_take_too_much_while_they_load_are_refused_at_once(
    tmp_path: Path,
) -> None:
    module = "held = [b'x' * (1 << 20) for _ in range(500)]"
    async with limited(tmp_path, module) as node:
        for _ in range(2):  # it is not tried again
            with pytest.raises(ColdError, match="needs more memory than this node allows"):
                await node.server()


async def test_one_that_eats_memory_ends_and_its_runs_go_on(tmp_path: Path) -> None:
    async with limited(tmp_path, EATS) as node:
        server = await node.server()
        neighbour = await ready(node, "run-a-1", "print('went on')")
        groups = groups_of(node)
        assert server.pid in members(groups)
        with capture_logs() as logs:
            eat(node)
            await wait_until(lambda: is_gone(server.pid), 30)
            cold = await node.start("print('ran')", "run-b-1", warm=server)
            assert (await cold.wait()).exit_code == 0
            assert (read(cold.attempt.log), warm(cold)) == (b"ran\n", False)
            node.drop()
        said = {each.get("action"): each for each in logs}
        assert "warm_oom" in said
        assert said["warm_start_failed"]["error"] != "timed out", "it was seen to be gone"
        go_on(neighbour)
        record = await neighbour.wait()
        assert (record.exit_code, record.reason, record.oom) == (0, "exited", False), record
        assert read(neighbour.attempt.log) == b"ready\nwent on\n"
        (tmp_path / "warm").rename(tmp_path / "was")
        _, text = await node.run("print('warm')", name="run-c-1")
        assert text == "warm\n"


async def test_where_even_forks_are_too_much_runs_begin_cold(tmp_path: Path) -> None:
    """What a fork takes before it is in its own groups stays the warm process's."""
    async with limited(tmp_path) as node:
        server = await node.server()
        leave(groups_of(node), 3 * MIB)
        handles = [await ready(node, f"run-{n}-1", f"print({n})", warm=server) for n in range(12)]
        for handle in handles:
            go_on(handle)
        records = [await handle.wait() for handle in handles]
        assert [(each.exit_code, each.oom) for each in records] == [(0, False)] * 12
        assert {warm(handle) for handle in handles} == {True, False}


HANDS_OVER = """
import os, signal, socket
from stellwerk_shim import cgroup
ours, theirs = socket.socketpair()
ours.setblocking(False)
enter = cgroup.enter
def hand_over(doors):
    socket.send_fds(theirs, [b"doors"], doors)
    enter(doors)
cgroup.enter = hand_over
def move(*_):
    try: _, doors, _, _ = socket.recv_fds(ours, 5, 9)
    except BlockingIOError: return
    for door in doors: os.write(door, b"0")
signal.signal(signal.SIGALRM, move)
signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
"""


async def test_one_that_goes_over_into_the_groups_of_a_run_ends_with_it(tmp_path: Path) -> None:
    async with limited(tmp_path, HANDS_OVER) as node:
        server = await node.server()
        handle = await ready(node, "run-a-1")
        taken = [Path(group) for group in (handle.attempt.read_launch() or {})["cgroups"]]
        await wait_until(lambda: server.pid in members(taken), 10)
        go_on(handle)
        assert (await handle.wait()).exit_code == 0
        await wait_until(lambda: is_gone(server.pid), 10)
        cold = await node.start("print('ran')", "run-b-1", warm=server)
        assert (await cold.wait()).exit_code == 0
        assert not warm(cold)


async def test_a_run_that_gets_no_groups_does_not_stay_in_those_of_its_warm_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[Path]:
        raise OSError("no space left")

    async with limited(tmp_path) as node:
        server = await node.server()
        monkeypatch.setattr(Cgroups, "take", refuse)
        handle = await node.start(HOLDS, warm=server)
        assert (await handle.wait()).exit_code == 0
        launch = handle.attempt.read_launch() or {}
        assert (launch["warm"], launch["cold_reason"]) == (
            False,
            "it has no control group of its own",
        )
        with pytest.raises(WallsError, match="no control group of its own"):
            await node.start(HOLDS, "run-b-1", warm=server, must_be_warm=True)


async def test_groups_that_packages_may_enter_go_to_runs_of_theirs_alone(tmp_path: Path) -> None:
    """They may keep the files that a run enters its groups by."""
    async with limited(tmp_path) as node:
        isolation = node.service._walls
        assert isinstance(isolation, Isolation)

        async def groups(name: str, warm: WarmServer | None) -> list[Path]:
            handle = await node.start("print(1)", name, warm=warm)
            assert (await handle.wait()).exit_code == 0
            found = (handle.attempt.read_launch() or {})["cgroups"]
            await node.service.cleanup(handle.attempt)
            return [Path(group) for group in found]

        server = await node.server()
        first = await groups("run-a-1", server)
        assert await groups("run-b-1", None) != first
        assert await groups("run-c-1", server) == first, "for nothing has moved in"
        with subprocess.Popen(["sleep", "60"]) as stray:
            (first[0] / "cgroup.procs").write_text(str(stray.pid))
            assert await groups("run-d-1", server) != first
            await isolation.sweep(node.folder / "executor/attempts")
            assert stray.wait(10) == -signal.SIGKILL
        await isolation.sweep(node.folder / "executor/attempts")
        assert not any(group.exists() for group in first)
        assert await node.server() is server, "it is in groups that are its own"


async def test_who_moves_into_a_group_that_waits_is_ended(tmp_path: Path) -> None:
    async with limited(tmp_path) as node:
        isolation = node.service._walls
        assert isinstance(isolation, Isolation)
        handle = await node.start("print(1)")
        await handle.wait()
        found = [Path(group) for group in (handle.attempt.read_launch() or {})["cgroups"]]
        await node.service.cleanup(handle.attempt)
        with subprocess.Popen(["sleep", "60"]) as stray:
            (found[0] / "cgroup.procs").write_text(str(stray.pid))
            await isolation.sweep(node.folder / "executor/attempts")
            assert stray.wait(10) == -signal.SIGKILL


@pytest.mark.parametrize("unified", [False, True])
def test_a_run_in_a_warm_process_has_a_group_without_a_limit_all_the_same(unified: bool) -> None:
    file = "memory.max" if unified else "memory.limit_in_bytes"
    assert Wanted().of("memory", unified=unified) == {}
    none = Wanted(apart=True).of("memory", unified=unified)
    assert none == {file: "max" if unified else "-1"}
    assert Wanted(memory_bytes=MIB).of("memory", unified=unified)[file] == str(MIB)


async def test_without_memory_control_it_has_no_limit(tmp_path: Path) -> None:
    async with limited(tmp_path, EATS) as node:
        isolation = node.service._walls
        assert isinstance(isolation, Isolation)
        isolation.groups.folders.pop("memory")  # type: ignore[attr-defined]
        server = await node.server()
        assert not any((group / "memory.stat").exists() for group in groups_of(node))
        record, _ = await node.run(HOLDS)
        assert (record.exit_code, record.oom) == (0, False)
        assert (await node.server()) is server


@pytest.mark.parametrize("when", ["sweep", "close"])
async def test_nothing_is_left_of_its_groups(tmp_path: Path, when: str) -> None:
    async with limited(tmp_path) as node:
        server = await node.server()
        groups = groups_of(node)
        for group in groups:
            assert group.name.startswith("warm-")
        node.drop()
        await wait_until(lambda: is_gone(server.pid), 10)
        isolation = node.service._walls
        assert isinstance(isolation, Isolation)
        if when == "sweep":
            await isolation.sweep(tmp_path / "executor/attempts")
        else:
            isolation.groups.close()
        assert not any(group.exists() for group in groups)
