"""Which runs get a warm process, and how many there are."""

import asyncio
import os
import shutil
import sys
import venv
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from walled_attempts import lay_out, walls

from stellwerk.events import ImageInfo, RunAssigned
from stellwerk.runspec import InlineSource, RunSpec
from stellwerk_gpu_executor.domain import Places
from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.warm import TRIES, WarmPool
from stellwerk_gpu_executor.warm_choice import Choice, Limits
from stellwerk_gpu_executor.warm_process import ColdError, WarmProcess
from stellwerk_gpu_executor.warm_rules import Recipe, names_unseen, recipe_of, shadowed, unfit
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.testing import wait_until

AGENT = "/agent"
ENV = {"PYTHONPATH": AGENT, "PATH": "/usr/bin:/bin"}


def assigned(image: dict[str, str] | None = None, **spec: object) -> RunAssigned:
    made = {"source": InlineSource(inline={"main.py": "pass"}), "script": "main.py", **spec}
    return RunAssigned(
        run_id="r" * 32,
        attempt=1,
        node_id="n",
        executor_id="local",
        pool="local",
        lease_s=120,
        experiment="e",
        workspace="w",
        spec=RunSpec.model_validate(made),
        image=ImageInfo(env_id="e" * 40, **(image or {})),
        inputs={},
    )


@pytest.mark.parametrize(
    ("run", "env", "reason"),
    [
        (assigned(), ENV, None),
        (assigned(warm="never"), ENV, "asks for a cold start"),
        (assigned(script=None, command=("true",)), ENV, "not a Python script"),
        (assigned(distributed={"backend": "mpi", "process_count": 2}), ENV, "distributed"),
        (assigned(), {**ENV, "PYTHONPATH": "src"}, "PYTHONPATH"),
        (assigned({"interpreter": "/usr/bin/python3"}), ENV, None),
    ],
)
def test_what_keeps_a_run_cold(run: RunAssigned, env: dict[str, str], reason: str | None) -> None:
    found = unfit(run, env, AGENT)
    assert (found is None) if reason is None else (reason in str(found))


@pytest.mark.parametrize(
    ("name", "early"),
    [
        ("KERAS_BACKEND", True),
        ("PYTHONHASHSEED", True),
        ("OMP_NUM_THREADS", True),
        ("TF_ENABLE_ONEDNN_OPTS", True),
        ("TZ", True),
        ("TF_CONFIG", False),
        ("LEARNING_RATE", False),
        ("AZUREML_RUN_ID", False),
        ("HOME", False),
    ],
)
def test_only_variables_that_were_read_early_need_another_process(name: str, early: bool) -> None:
    assert (recipe_of("python", {**ENV, name: "x"}) != recipe_of("python", ENV)) is early


@pytest.mark.parametrize(
    ("name", "value", "cold"),
    [
        ("LD_PRELOAD", "/executor/attempts/run-1/work/mine.so", True),
        ("OMP_TOOL_LIBRARIES", "./mine.so", True),
        ("PATH", "/executor/attempts/run-1/work", True),
        ("MPLCONFIGDIR", "/secrets", True),
        ("XLA_FLAGS", "--xla_dump_to=/secrets", True),
        ("TZ", "/executor/attempts/run-1/work/zone", True),
        ("TZ", "../../../secrets", True),
        ("TZ", "Europe/Berlin", False),
        ("LD_PRELOAD", "/usr/lib/libjemalloc.so.2", False),
        ("LD_PRELOAD", "/usr/lib/../../mine.so", True),
        ("LD_LIBRARY_PATH", "/opt/lib:/env/lib", False),
        ("LD_LIBRARY_PATH", "/opt/lib:/environment", True),
        ("XLA_FLAGS", "--xla_cpu_use_thunk_runtime=false", False),
        ("KERAS_BACKEND", "jax", False),
        ("DATA", "/data", False),
    ],
)
def test_what_only_the_run_would_find_keeps_it_cold(name: str, value: str, cold: bool) -> None:
    env = {name: value, "HOME": "/home"}
    recipe = recipe_of("/env/bin/python", env)
    assert (names_unseen(recipe, {name}, env, inside=True) is not None) == cold
    assert names_unseen(recipe, {"HOME"}, env, inside=True) is None
    cold_outside = cold or ("/" in value and name not in {"DATA", "TZ"})
    assert (names_unseen(recipe, {name}, env, inside=False) is not None) == cold_outside


def test_a_module_beside_the_script_that_is_loaded_already() -> None:
    modules = frozenset({"keras", "queue"})
    assert shadowed(modules, ["main.py", "helper.py"]) is None
    assert "queue.py" in str(shadowed(modules, ["main.py", "queue.py"]))
    assert "keras" in str(shadowed(modules, ["keras"]))


class Nodes:
    """Pools that share a folder and a task owner."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tasks, self.pools = folder, TaskOwner(), list[WarmPool]()

    def pool(self, preload: tuple[str, ...] = ("json",), **limits: int) -> WarmPool:
        self.pools.append(
            WarmPool(self.folder, preload, Limits(**limits), SystemClock(), self.tasks)
        )
        return self.pools[-1]


@pytest_asyncio.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[Nodes]:
    made = Nodes(tmp_path / "warm")
    yield made
    for pool in made.pools:
        pool.close()
    await made.tasks.close()
    assert not made.tasks.failed.is_set(), made.tasks.failure


def recipe(**variables: str) -> Recipe:
    return recipe_of(sys.executable, {**ENV, **variables})


async def test_the_least_recently_used_leaves(nodes: Nodes, tmp_path: Path) -> None:
    pool = nodes.pool(count=2)
    one, two, three = (recipe(KERAS_BACKEND=name) for name in "abc")
    await pool.ready(one)
    await pool.ready(two)
    kept = pool.take(one)
    await pool.ready(three)
    assert pool.take(one) is kept
    with pytest.raises(
        ColdError, match="no warm process yet that began with the same KERAS_BACKEND"
    ):
        pool.take(two)


async def test_one_that_needs_too_much_memory_is_not_kept(nodes: Nodes, tmp_path: Path) -> None:
    pool = nodes.pool(memory_bytes=1)
    with pytest.raises(ColdError, match="more memory"):
        await pool.ready(recipe())
    with pytest.raises(ColdError, match="more memory"):
        pool.take(recipe())
    pool.want(recipe())
    assert not pool.servers()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise OSError('no such library')", "does not import: OSError: no such library"),
        ("import threading, time\nthreading.Thread(target=time.sleep, args=(9,), daemon=True).start()", "threads"),
        ("import os; os._exit(1)", "ended while it was loading"),
        ("raise SystemExit(3)", "ended while it was loading"),
    ],
)  # fmt: skip
async def test_a_list_that_cannot_be_loaded_keeps_runs_cold(
    nodes: Nodes, tmp_path: Path, body: str, words: str
) -> None:
    (tmp_path / "poison.py").write_text(body)
    pool = nodes.pool(("poison",))
    poisoned = recipe(PYTHONPATH=str(tmp_path))
    for _ in range(TRIES if words.startswith("ended") else 1):
        with pytest.raises(ColdError, match=words):
            await pool.ready(poisoned)
    with pytest.raises(ColdError, match="refuses to serve"):
        pool.take(poisoned)


async def test_a_tensorflow_that_has_initialised_its_devices_keeps_runs_cold(
    nodes: Nodes, tmp_path: Path
) -> None:
    """Its thread pools do not survive a fork: training in one would hang for ever."""
    package = tmp_path / "tensorflow" / "python" / "eager"
    package.mkdir(parents=True)
    (package / "context.py").write_text(
        "import types\ndef context(): return types.SimpleNamespace(_context_handle=HANDLE)"
    )
    poisoned = recipe(PYTHONPATH=str(tmp_path))
    (tmp_path / "poison.py").write_text(
        "from tensorflow.python.eager import context as c; c.HANDLE = 1"
    )
    with pytest.raises(ColdError, match="TensorFlow has initialised its devices"):
        await nodes.pool(("poison",)).ready(poisoned)
    (tmp_path / "poison.py").write_text(
        "from tensorflow.python.eager import context as c; c.HANDLE = None"
    )
    await nodes.pool(("poison",)).ready(poisoned)


async def test_one_that_is_dropped_while_it_loads_is_in_nobodys_way(
    nodes: Nodes, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "slow.py").write_text(
        "import os, time\n"
        f"while os.environ['KERAS_BACKEND'] == 'a' and os.path.exists({str(gate)!r}): time.sleep(0.1)"
    )
    pool = nodes.pool(("slow",), count=1)
    one, two = (recipe(KERAS_BACKEND=name, PYTHONPATH=str(tmp_path)) for name in "ab")
    pool.want(one)  # nobody waits for it
    async with asyncio.timeout(20):
        await pool.ready(two)  # its connection has the number of the one that was closed
        gate.unlink()
        await pool.ready(one)
    assert pool.take(one)


PLACES = Places(Path(), Path(), Path(), Path(AGENT), {}, {}, Path())


class Slow:
    """Warm processes that are loading until their gate is removed; one for each value."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "slow.py").write_text(
            "import os, time\n"
            f"while os.path.exists(os.path.join({str(folder)!r}, os.environ['KERAS_BACKEND'])):"
            " time.sleep(0.02)"
        )

    def env(self, value: str) -> dict[str, str]:
        return {**ENV, "KERAS_BACKEND": value, "TORCH_HOME": str(self.folder)}

    def close_gates(self, *values: str) -> None:
        for value in values:
            (self.folder / value).touch()

    def open_gate(self, value: str) -> None:
        (self.folder / value).unlink()


@pytest.fixture
def slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Slow:
    of = WarmProcess.of

    def found(wanted: Recipe, *rest: Any) -> WarmProcess:
        """With the slow module on its path, which a run's own PYTHONPATH could not say."""
        more = (*wanted.variables, ("PYTHONPATH", str(tmp_path)))
        return of(replace(wanted, variables=more), *rest)

    monkeypatch.setattr(WarmProcess, "of", found)
    return Slow(tmp_path)


async def test_more_runs_than_places_take_turns(nodes: Nodes, tmp_path: Path, slow: Slow) -> None:
    pool = nodes.pool(("slow",), count=2)
    (tmp_path / "work").mkdir()
    places = replace(PLACES, work=tmp_path / "work")
    slow.close_gates("a", "b", "c", "d")

    async def require(value: str) -> Choice:
        return await pool.choose(assigned(warm="require"), sys.executable, slow.env(value), places)

    asked = {value: nodes.tasks.spawn_quiet(require(value), value) for value in "abcd"}
    await wait_until(lambda: len(pool.servers()) == 2)
    loading = {server.pid for server in pool.servers()}
    slow.open_gate("b")
    second = await asked["b"]
    assert second.server is not None
    assert {server.pid for server in pool.servers()} == loading, "it has not begun yet"
    pool.release(second)
    await wait_until(lambda: second.server not in pool.servers() and len(pool.servers()) == 2)
    for value in "cad":  # the third has the second's place, the first was never disturbed
        slow.open_gate(value)
        choice = await asked[value]
        assert choice.server in pool.servers()
        assert len(pool.servers()) <= 2
        pool.release(choice)


async def test_memory_that_held_ones_need_is_given_back_when_they_are_let_go(
    nodes: Nodes, tmp_path: Path
) -> None:
    pool = nodes.pool(count=2)
    places = replace(PLACES, work=tmp_path)

    async def require(value: str) -> Choice:
        env = {**ENV, "KERAS_BACKEND": value}
        return await pool.choose(assigned(warm="require"), sys.executable, env, places)

    first = await require("a")
    assert first.recipe is not None
    alone = pool._warm[first.recipe].memory()
    pool.limits = replace(pool.limits, memory_bytes=int(alone * 1.25))
    second = await require("b")
    assert {first.server, second.server} == set(pool.servers()), "both are about to begin a run"
    pool.release(second)
    await wait_until(lambda: pool.servers() == [first.server])
    pool.release(first)
    assert pool.servers() == [first.server]


async def test_whoever_waits_too_long_for_a_turn_is_told(
    nodes: Nodes, tmp_path: Path, slow: Slow
) -> None:
    pool = nodes.pool(("slow",), count=1, turn_s=0.1)
    slow.close_gates("a")
    first = nodes.tasks.spawn_quiet(pool.ready(recipe_of(sys.executable, slow.env("a"))), "first")
    await wait_until(pool.servers)
    other = recipe_of(sys.executable, slow.env("b"))
    with pytest.raises(ColdError, match=r"waited 0\.1 s for its turn.*STELLWERK_WARM_PROCESSES"):
        await pool.ready(other)
    pool.want(other)  # a run that may be cold takes nobody's place
    slow.open_gate("a")
    await first
    await pool.ready(other)
    assert pool.take(other)


async def test_the_end_of_the_service_fails_no_run_that_waits(nodes: Nodes, tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)")
    pool = nodes.pool(("slow",))
    waiting = nodes.tasks.spawn_quiet(pool.ready(recipe(PYTHONPATH=str(tmp_path))), "waits")
    await wait_until(pool.servers)
    pool.close()
    assert await asyncio.wait({waiting}, timeout=0.2) == (set(), {waiting})


async def test_one_that_is_loading_leaves_last(nodes: Nodes, tmp_path: Path) -> None:
    pool = nodes.pool(count=2)
    one, two, three = (recipe(KERAS_BACKEND=name) for name in "abc")
    await pool.ready(one)
    pool.want(two)
    pool.take(one)  # used later than the other was begun
    pool.want(three)
    await pool.ready(two)
    assert pool.take(two)
    with pytest.raises(ColdError, match="no warm process yet"):
        pool.take(one)


async def test_what_is_not_installed_is_left_out(nodes: Nodes, tmp_path: Path) -> None:
    pool = nodes.pool(("no_such_framework", "json"))
    await pool.ready(recipe())
    assert pool.take(recipe())


async def test_begun_anew_in_a_replaced_environment(nodes: Nodes, tmp_path: Path) -> None:
    interpreter = tmp_path / "env" / "bin" / "python"
    interpreter.parent.mkdir(parents=True)
    interpreter.symlink_to(sys.executable)
    pool, mine = nodes.pool(), recipe_of(str(interpreter), ENV)
    await pool.ready(mine)
    server = pool.take(mine)
    (tmp_path / "env" / "changed").touch()
    with pytest.raises(ColdError, match="no warm process yet"):
        pool.take(mine)
    await wait_until(lambda: not Path(f"/proc/{server.pid}").exists(), 10)


class Venv:
    """A user's own environment with one package, and a pool that has a plain process in it."""

    def __init__(self, nodes: Nodes, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "env", symlinks=True, with_pip=False)
        self.site = next((folder / "env" / "lib").glob("python*/site-packages"))
        python = str(folder / "env" / "bin" / "python")
        recipe = recipe_of(python, ENV, user_managed=True)
        self.pool, self.recipe = nodes.pool(), replace(recipe, plain=True)

    async def ready(self) -> WarmServer:
        while True:  # a file of it may be so young that it could have changed meanwhile
            try:
                await self.pool.ready(self.recipe)
                return self.take()
            except ColdError as error:
                if "changed while" not in str(error):
                    raise

    def take(self) -> WarmServer:
        return self.pool.take(self.recipe, whatever_starts=False)


CHANGES: dict[str, Callable[[Venv], object]] = {
    "a package is installed": lambda env: (env.site / "new.py").touch(),
    "a .pth file says something else": lambda env: (env.site / "own.pth").write_text("/tmp\n"),
    "its settings change": lambda env: edit(env.folder / "env" / "pyvenv.cfg"),
    "a loaded module is edited, its time set back": lambda env: edit(env.site / "loaded.py"),
    "its interpreter is another": lambda env: relink(env.folder / "env" / "bin" / "python"),
}


def edit(path: Path) -> None:
    status = path.stat()
    path.write_text(path.read_text().replace("1", "2", 1))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def relink(python: Path) -> None:
    target = python.resolve()
    python.unlink()
    copied = python.with_name("copied")
    shutil.copy2(target, copied)
    python.symlink_to(copied)


@pytest.mark.parametrize("change", CHANGES)
async def test_a_changed_environment_of_the_user_is_never_served(
    nodes: Nodes, tmp_path: Path, change: str
) -> None:
    env = Venv(nodes, tmp_path)
    (env.site / "loaded.py").write_text("x = 1\n")
    (env.site / "own.pth").write_text("# nothing\n")
    (env.site / "__editable__.own.pth").write_text("import loaded\n")
    server = await env.ready()
    assert env.take() is server
    CHANGES[change](env)
    with pytest.raises(ColdError, match="no warm process yet"):
        env.take()


@pytest.mark.parametrize("name", ["sitecustomize.py", "own.pth"])
async def test_code_that_runs_in_every_interpreter_keeps_runs_cold(
    nodes: Nodes, tmp_path: Path, name: str
) -> None:
    env = Venv(nodes, tmp_path)
    (env.site / name).write_text("import os\n")
    with pytest.raises(ColdError, match=name.removesuffix(".py")):
        await env.ready()
    assert env.pool.take(env.recipe), "whoever requires it takes what starts"


async def test_a_user_managed_environment_is_plain_until_frameworks_are_required(
    nodes: Nodes, tmp_path: Path
) -> None:
    pool = nodes.pool()
    places = Places(tmp_path, tmp_path, tmp_path, Path(AGENT), {}, {}, tmp_path)
    mine = assigned({"interpreter": sys.executable})

    async def choose(run: RunAssigned) -> Choice:
        return await pool.choose(run, sys.executable, ENV, places)

    first = await choose(mine)
    assert (first.server, first.recipe and first.recipe.plain) == (None, True)
    assert first.recipe is not None
    pool.used(first.recipe)
    await pool.ready(first.recipe)
    plain = await choose(mine)
    assert plain.server is not None
    full = await choose(assigned({"interpreter": sys.executable}, warm="require"))
    assert full.server is not None
    assert full.server is not plain.server
    assert (await choose(mine)).server is full.server


async def test_the_choice_and_its_reason(nodes: Nodes, tmp_path: Path) -> None:
    pool = nodes.pool()
    places = Places(tmp_path, tmp_path, tmp_path, Path(AGENT), {}, {}, tmp_path)
    must = assigned(warm="require")
    cold = await pool.choose(assigned(), sys.executable, ENV, places)
    assert (cold.server, cold.reason) == (None, "its environment has no warm process yet")
    warm = await pool.choose(must, sys.executable, ENV, places)
    assert (warm.server is not None, warm.reason) == (True, None)
    pool.release(warm)
    again = await pool.choose(assigned(), sys.executable, ENV, places)
    assert again.server is warm.server
    never = await pool.choose(assigned(warm="never"), sys.executable, ENV, places)
    assert (never.server, never.recipe) == (None, None)
    (tmp_path / "json.py").touch()
    with pytest.raises(ColdError, match=r"json\.py beside the script"):
        await pool.choose(must, sys.executable, ENV, places)
    off = nodes.pool(count=0)
    with pytest.raises(ColdError, match="off on this node"):
        await off.choose(must, sys.executable, ENV, places)


async def test_two_hundred_at_once(nodes: Nodes, tmp_path: Path) -> None:
    pool = nodes.pool()
    await asyncio.gather(*(pool.ready(recipe()) for _ in range(200)))
    assert len({pool.take(recipe()).pid for _ in range(200)}) == 1


async def test_a_library_of_its_own_keeps_a_run_cold_behind_walls(
    nodes: Nodes, tmp_path: Path
) -> None:
    pool = nodes.pool()
    places = Places(tmp_path, tmp_path, tmp_path, Path(AGENT), {}, {}, tmp_path)
    run = assigned(environment_variables={"LD_PRELOAD": "/tmp/mine.so"})
    must = assigned(environment_variables={"LD_PRELOAD": "/tmp/mine.so"}, warm="require")
    env = {**ENV, "LD_PRELOAD": "/tmp/mine.so"}
    assert (await pool.choose(run, sys.executable, env, places)).recipe is not None
    pool.isolation = walls(lay_out(tmp_path / "node"))
    choice = await pool.choose(run, sys.executable, env, places)
    assert (choice.recipe, str(choice.reason).partition(",")[0]) == (
        None,
        "LD_PRELOAD names /tmp/mine.so",
    )
    with pytest.raises(ColdError, match=r"LD_PRELOAD names /tmp/mine\.so"):
        await pool.choose(must, sys.executable, env, places)
    (tmp_path / "main.py").write_text("import os\nos.environ['LD_PRELOAD'] = '/tmp/mine.so'\n")
    choice = await pool.choose(assigned(), sys.executable, ENV, places)
    assert str(choice.reason).startswith("LD_PRELOAD names /tmp/mine.so")
    await pool.isolation.close()


async def test_our_own_modules_are_told_as_loaded(nodes: Nodes) -> None:
    """A script's file with such a name would not be imported in a fork: it keeps the run cold."""
    pool = nodes.pool()
    await pool.ready(recipe())
    told = pool._warm[recipe()].ready.result()
    assert {"socket", "json", "select"} <= told.modules
