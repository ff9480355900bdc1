"""What the packages of an environment may try from their warm process: none of it reaches others."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path

import pytest
from real_attempts import is_gone, read
from walled_attempts import attempt
from walled_warm import a_node, go_on, inside, ready, warm

from stellwerk_gpu_executor.warm_process import ColdError
from stellwerk_gpu_executor.warm_rules import recipe_of
from stellwerk_kit.testing import wait_until

LINK = """
import array, json, os, socket, time
link = socket.socket(fileno=os.dup(3))
def say(word, *descriptors):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    link.sendmsg([word if isinstance(word, bytes) else json.dumps(word).encode()], rights)
GOOD = {"modules": [], "startup": [], "loaded": [], "seconds": 0.0, "python": "3"}
"""
LIES = {
    "no object": "say([1])",
    "nothing of it": "say({})",
    "names that are none": "say({**GOOD, 'modules': [[1]]})",
    "too deep": "say(b'[' * 100_000)",
    "no text": "say(b'\\xff')",
    "a time that is none": 'say(b\'{"seconds": 1e999, "modules": 7, "startup": 1}\')',
    "one descriptor": "say(b'1', 0)",
    "two descriptors": "say(b'1', 0, 0)",
    "many descriptors": "say(b'1', *[0] * 200)",
    "no number with them": "say(b'x', 0, 0)",
    "descriptors with its word": "say(GOOD, 0)",
}


@pytest.mark.parametrize("lie", LIES)
async def test_what_it_says_of_itself_is_refused_where_it_makes_no_sense(
    tmp_path: Path, lie: str
) -> None:
    async with a_node(tmp_path, LINK + LIES[lie] + "\ntime.sleep(60)") as node:
        before = _open()
        for _ in range(2):
            with pytest.raises(ColdError, match="refuses to serve"):
                async with asyncio.timeout(20):
                    await node.server()
        node.pool._refusals._said.clear()
        with pytest.raises(ColdError):
            await node.server()
        assert _open() <= before + 4, "the view and its descriptors"


def _open() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers


async def test_nobody_waits_while_it_loads(tmp_path: Path) -> None:
    async with a_node(tmp_path, "import time; time.sleep(1.5)") as node:
        turns, done = 0, asyncio.Event()

        async def turn() -> None:
            nonlocal turns
            while not done.is_set():
                await asyncio.sleep(0.01)
                turns += 1

        async with asyncio.TaskGroup() as both:
            both.create_task(turn())
            await node.server()
            done.set()
        assert turns > 20, "some 150 if nobody else wants this machine, a few if somebody waits"


async def test_it_has_no_descriptor_of_another(tmp_path: Path) -> None:
    module = "import os\nOPEN = {n: os.readlink(f'/proc/self/fd/{n}') for n in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{n}')}"
    async with a_node(tmp_path, module) as node:
        first = await ready(node, "run-a-1")
        cold = await ready(node, "run-b-1", warm=None)
        node.env["TF_OTHER"] = "1"
        _, text = await node.run(
            "import json, looks; print(json.dumps(looks.OPEN))", name="run-c-1"
        )
        for handle in (first, cold):
            go_on(handle)
            await handle.wait()
        seen = set(json.loads(text).values())
        (log,) = {name for name in seen if name.endswith(".log")}
        (link,) = {name for name in seen if name.startswith("socket:")}
        assert seen == {"/dev/null", log, link}, "its own log and the executor's connection"


async def test_its_tmp_is_a_folder_of_its_own_whatever_it_leaves(tmp_path: Path) -> None:
    module = """
import os
SEEN = os.listdir("/tmp")
if os.path.isdir("tmp") and not os.path.islink("tmp"):
    os.rename("tmp", "before")
elif os.path.islink("tmp"):
    os.unlink("tmp")
os.symlink(os.path.dirname(EXECUTOR) + "/secrets", "tmp")
"""
    async with a_node(tmp_path, module) as node:
        for number in range(2):
            _, text = await node.run("import looks; print(looks.SEEN)", name=f"run-{number}-1")
            assert "s3.json" not in text
            node.drop()


LOOK_AT_HELPERS = """
import os, signal, time
if os.fork() == 0:
    os.closerange(0, 1000)
    mine, seen = {os.getpid(), os.getppid()}, {}
    end = time.monotonic() + 20
    with open("began", "w"): pass
    while time.monotonic() < end:
        for pid in [int(n) for n in os.listdir("/proc") if n.isdigit() and int(n) not in mine]:
            if pid == 1: continue
            try:
                for each in os.listdir(f"/proc/{pid}/fd"):
                    name = os.readlink(f"/proc/{pid}/fd/{each}")
                    place = f"/proc/{pid}/fd/{each}"
                    if name.startswith("/") and os.path.isdir(place) and os.path.exists(place + "/../executor" ) :
                        with open("found", "a") as out: out.write(name + "\\n")
                    if name == "/proc" or name.endswith("attempts") or "/run-" in name:
                        with open("found", "a") as out: out.write(f"{name} {open(f'/proc/{pid}/cmdline').read()}\\n")
            except OSError: pass
    os._exit(0)
"""


async def test_what_lays_out_a_run_is_out_of_its_sight(tmp_path: Path) -> None:
    async with a_node(tmp_path, LOOK_AT_HELPERS) as node:
        for number in range(20):
            record, text = await node.run("pass", name=f"run-{number}-1")
            assert record.exit_code == 0, text
        assert list((tmp_path / "warm").rglob("began"))
        found = [path.read_text() for path in (tmp_path / "warm").rglob("found")]
        assert not found, found[0][:500]


SERVES = """
import os, signal, socket, time
from stellwerk_shim import messages, warm_runs
send = warm_runs._send
"""
PLACES = {
    "does not answer": "warm_runs._send = lambda *_: None",
    "hands over files": """
null = os.open("/dev/null", os.O_RDONLY)
warm_runs._send = lambda link, text, *given: send(link, text, *[null for _ in given])""",
    "hands over too much": """
warm_runs._send = lambda link, text, *given: send(link, text, *given, *[0] * 40)""",
    "names itself": """
me = os.pidfd_open(os.getpid())
warm_runs._send = lambda link, text, *given: send(link, text, *((given[0], me, given[2]) if len(given) == 3 else given))""",
    "names itself as the run": """
me = os.pidfd_open(os.getpid())
warm_runs._send = lambda link, text, *given: send(link, text, *((me,) if len(given) == 1 else given))""",
    "hands over no socket": """
null = os.open("/dev/null", os.O_RDONLY)
warm_runs._send = lambda link, text, *given: send(link, text, *((*given[:2], null) if len(given) == 3 else given))""",
    "names its own processes": """
own = os.open("/proc/self/ns/pid", os.O_RDONLY)
warm_runs._send = lambda link, text, *given: send(link, text, *((own,) + given[1:] if len(given) == 3 else given))""",
    "names one that has ended": """
def ended():
    pid = os.fork()
    if pid == 0: os._exit(0)
    pidfd = os.pidfd_open(pid)
    os.waitpid(pid, 0)
    return pidfd
warm_runs._send = lambda link, text, *given: send(link, text, *((given[0], ended(), given[2]) if len(given) == 3 else given))""",
    "words without end": """
def talk(waits, interpreter):
    _, given, _ = messages.receive(waits)
    while True: os.write(given[3], b"x" * 65536)
warm_runs._become = talk""",
    "keeps the report": """
def keep(waits, interpreter):
    _, given, _ = messages.receive(waits)
    if os.fork() == 0: time.sleep(60)
    os._exit(0)
warm_runs._become = keep""",
}


@pytest.mark.parametrize("place", PLACES)
async def test_a_place_that_is_none_makes_the_run_begin_cold(tmp_path: Path, place: str) -> None:
    async with a_node(tmp_path, SERVES + PLACES[place]) as node:
        handle = await node.start("print('cold')")
        record = await handle.wait()
        assert (record.exit_code, read(handle.attempt.log)) == (0, b"cold\n"), record
        assert not warm(handle)
        assert not (handle.attempt.path / "shim.log").exists()


async def test_a_run_is_ended_whatever_its_first_process_is(tmp_path: Path) -> None:
    sleeper = "warm_runs.INIT = '/bin/sleep'\nwarm_runs.os.posix_spawn = lambda p, a, e, **o: spawn(p, [p, '600'], e)"
    async with a_node(tmp_path, SERVES + "spawn = os.posix_spawn\n" + sleeper) as node:
        handle = await ready(node, "run-a-1", "import time; time.sleep(600)")
        handle.stop("canceled", 0.1)
        async with asyncio.timeout(10):
            record = await handle.wait()
        assert record.reason == "canceled"
        await wait_until(lambda: inside(tmp_path) == 1, 5)


async def test_the_size_it_tells_is_one_that_can_be(tmp_path: Path) -> None:
    lie = "warm_runs._send = lambda link, text, *given: send(link, text if given else b'9' * 4000, *given)"
    async with a_node(tmp_path, SERVES + lie) as node:
        record, _ = await node.run("pass")
        assert record.peak_rss_bytes <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


async def test_a_warm_process_that_is_stopped_delays_no_end(tmp_path: Path) -> None:
    async with a_node(tmp_path) as node:
        handle = await ready(node, "run-a-1", "import sys; sys.exit(5)")
        pid = (await node.server()).pid
        os.kill(pid, signal.SIGSTOP)
        go_on(handle)
        async with asyncio.timeout(30):  # it is stopped for as long as this test likes
            record = await handle.wait()
        assert record.exit_code == 5
        node.drop()
        await wait_until(lambda: is_gone(pid), 10)


FILES = {
    "a pipe": "os.mkfifo('origins')",
    "a link": "os.symlink('/dev/zero', 'origins')",
    "an endless list": "open('origins', 'w').write('/usr/bin/env\\n' * 1_000_000)",
}


@pytest.mark.parametrize("kind", FILES)
async def test_what_it_was_made_of_is_read_with_care(tmp_path: Path, kind: str) -> None:
    module = f"{LINK}\n{FILES[kind]}\nsay(GOOD)\ntime.sleep(60)"
    async with a_node(tmp_path, module) as node:
        recipe = recipe_of(sys.executable, node.env, user_managed=True)
        with pytest.raises(ColdError, match="refuses to serve"):
            async with asyncio.timeout(20):
                await node.pool.ready(recipe)


async def test_a_run_cannot_reach_what_holds_its_cell(tmp_path: Path) -> None:
    script = """
import os, signal
for name in ("root", "cwd", "exe", "fd/0", "environ", "mem"):
    try:
        path = f"/proc/1/{name}"
        print(name, open(path, "rb").read(1) if name in ("environ", "mem") else os.readlink(path))
    except OSError: pass
for number in range(1, 65):
    try: os.kill(1, number)
    except OSError: pass
print("here")
"""
    async with a_node(tmp_path) as node:
        for number, server in enumerate((await node.server(), None)):
            asked = attempt(node.folder, script, f"run-{number}-1", env=node.env, warm=server)
            handle = await node.service.start(asked)
            record = await handle.wait()
            assert (record.exit_code, read(handle.attempt.log)) == (0, b"here\n"), record
