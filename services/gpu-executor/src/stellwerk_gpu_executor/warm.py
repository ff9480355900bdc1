"""The warm processes of this node: one for each environment and set of early variables.

Each is a fork server inside an environment (`stellwerk_shim.nursery`) that has the frameworks
loaded and forks a run's supervisor and interpreter in milliseconds. They are bounded by number and
memory, the least recently used leaves; each is begun anew after a number of forks.

In a user's own environment a run gets a plain one by itself, with nothing loaded but Python: it
starts at once and costs little. One with frameworks is there when a run has required it.
"""

import asyncio
import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import structlog

import stellwerk_shim
from stellwerk.events import RunAssigned
from stellwerk_gpu_executor.domain import Places
from stellwerk_gpu_executor.early_settings import (
    UnknowableError,
    applied,
    read_sources,
    settings_of,
)
from stellwerk_gpu_executor.forkserver import ForkServer
from stellwerk_gpu_executor.warm_identity import Marks, environment_of, origins
from stellwerk_gpu_executor.warm_rules import (
    READ_EARLY,
    Recipe,
    none_yet,
    recipe_of,
    shadowed,
    unfit,
)
from stellwerk_kit.clock import Clock
from stellwerk_kit.tasks import TaskOwner

LINK = 3
LOAD_S = 180.0
TRIES = 3
TELL_BYTES = 1 << 20
_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be, with how much memory in all, and how often one may fork.

    As many plain ones are kept besides.
    """

    count: int = 2
    memory_bytes: int = 2 * 1024**3
    forks: int = 500


class ColdError(Exception):
    """There is no warm process for a run; the text says why."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How a run begins: in a fork of ``server``, or cold for a reason.

    ``recipe`` is set where a warm process could serve it.
    """

    server: ForkServer | None = None
    reason: str | None = None
    recipe: Recipe | None = None


@dataclass(frozen=True, slots=True)
class _Told:
    """What one said when it was ready: modules that are loaded, code its environment runs first."""

    modules: frozenset[str]
    startup: tuple[str, ...]


@dataclass
class _Warm:
    server: ForkServer
    home: Path
    environment: Marks
    used: float
    ready: "asyncio.Future[_Told]"
    began_ns: int
    forks: int = 0
    loading: "asyncio.Task[None] | None" = None


@dataclass
class WarmPool:
    """See the module's text. ``preload`` are the modules each loads, where they are installed."""

    folder: Path
    preload: tuple[str, ...]
    limits: Limits
    clock: Clock
    tasks: TaskOwner
    _warm: dict[Recipe, _Warm] = field(default_factory=dict)
    _refused: dict[Recipe, tuple[Marks, str]] = field(default_factory=dict)
    _deaths: dict[Recipe, int] = field(default_factory=dict)

    async def choose(
        self, assigned: RunAssigned, python: str, env: Mapping[str, str], places: Places
    ) -> Choice:
        """How a run begins. Raises ColdError for one that must begin warm and cannot."""
        must = assigned.spec.warm == "require"
        reason = unfit(assigned, env, str(places.agent))
        if not self.limits.count:
            reason = reason or "warm starts are off on this node"
        if reason is not None:
            if must:
                raise ColdError(reason)
            return Choice(reason=reason)
        try:
            sources = read_sources(places.work, assigned.spec.script or "")
            set_by_script = settings_of(sources.script, sources.helpers, READ_EARLY)
        except UnknowableError as error:
            if must:
                raise ColdError(str(error)) from error
            return Choice(reason=str(error))
        user_managed = assigned.image.interpreter is not None
        wanted = recipe_of(python, applied(env, set_by_script), user_managed=user_managed)
        try:
            if must:
                await self.ready(wanted)
            elif wanted.user_managed and not self._is_ready(wanted):
                wanted = replace(wanted, plain=True)
            server = self.take(wanted, sources.names, whatever_starts=must)
            return Choice(server, recipe=wanted)
        except ColdError as error:
            if must:
                raise
            return Choice(reason=str(error), recipe=wanted)

    def take(
        self, recipe: Recipe, names: Iterable[str] = (), *, whatever_starts: bool = True
    ) -> ForkServer:
        """The fork server for one run, whose own modules have these names. Raises ColdError.

        Code that an environment runs in every interpreter keeps a run cold, unless the caller
        takes it ``whatever_starts``: it may look at what the run is.
        """
        warm = self._current(recipe)
        if warm is None:
            raise ColdError(self._refusal(recipe) or none_yet(recipe, self._warm))
        if not warm.ready.done():
            raise ColdError("its warm process is still loading")
        told = warm.ready.result()
        if told.startup and recipe.user_managed and not whatever_starts:
            raise ColdError(f"{told.startup[0]} runs at the start of each interpreter there")
        reason = shadowed(told.modules, names)
        if reason is not None:
            raise ColdError(reason)
        warm.forks += 1
        warm.used = self.clock.monotonic()
        return warm.server

    def want(self, recipe: Recipe) -> None:
        """Begin to load one in the background unless it is there or was refused."""
        if not self.limits.count or self._refusal(recipe) or self._current(recipe):
            return
        self._make_room(recipe, self.limits.count - 1)
        try:
            warm = self._begin(recipe)
        except OSError as error:
            self._refuse(recipe, f"its warm process cannot be started: {error.strerror}")
            return
        self._warm[recipe] = warm
        warm.loading = self.tasks.spawn(self._load(recipe, warm), f"warm-{warm.server.pid}")

    async def ready(self, recipe: Recipe) -> None:
        """Wait until there is one for ``recipe``. Raises ColdError."""
        self.want(recipe)
        warm = self._warm.get(recipe)
        if warm is None:
            raise ColdError(self._refusal(recipe) or "warm starts are off on this node")
        await asyncio.wait({warm.ready})
        warm.ready.result()

    def used(self, recipe: Recipe) -> None:
        """A run of it has ended: load it for the next one, or anew when it has forked enough."""
        warm = self._warm.get(recipe)
        if warm is not None and warm.forks >= self.limits.forks:
            self._drop(recipe)
        if recipe not in self._warm:  # else the next run looks whether it is still right
            self.want(recipe)

    def broken(self, recipe: Recipe) -> None:
        """A fork of it did not begin: it is not asked again."""
        self._drop(recipe)

    def servers(self) -> list[ForkServer]:
        """Those there are, loading or ready."""
        return [warm.server for warm in self._warm.values()]

    def close(self) -> None:
        """End all, and begin none any more; their runs go on.

        Who waits for one is not told: its run is for the next executor, it has not failed.
        """
        self.limits = replace(self.limits, count=0)
        for warm in self._warm.values():
            _end(warm)
        self._warm.clear()

    def _current(self, recipe: Recipe) -> _Warm | None:
        warm = self._warm.get(recipe)
        if warm is not None and not warm.environment.still():
            self._drop(recipe)
            return None
        return warm

    def _is_ready(self, recipe: Recipe) -> bool:
        warm = self._warm.get(recipe)
        return warm is not None and warm.ready.done()

    def _begin(self, recipe: Recipe) -> _Warm:
        name = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
        home = self.folder.absolute() / name
        home.mkdir(parents=True, exist_ok=True)
        env = {**dict(recipe.variables), "HOME": str(home)}
        modules = () if recipe.plain else self.preload
        command = [recipe.python, str(_ENTRY), "--warm", str(LINK), *modules]
        output = str(self.folder / f"{name}.log")
        environment, began_ns = environment_of(recipe.python), time.time_ns()
        server = ForkServer(command, env, LINK, output)
        future: asyncio.Future[_Told] = asyncio.get_running_loop().create_future()
        return _Warm(server, home, environment, self.clock.monotonic(), future, began_ns)

    async def _load(self, recipe: Recipe, warm: _Warm) -> None:
        try:
            told = await _hear(warm.server)
            if "refused" in told:
                raise ColdError(str(told["refused"]))
            marks = origins(warm.home) if recipe.user_managed else warm.environment
        except ConnectionResetError as error:
            self._ended(recipe, warm, f"its warm process refuses to serve: {error}")
            return
        except (ColdError, OSError, ValueError, TimeoutError) as error:
            self._refuse(recipe, f"its warm process refuses to serve: {error}"[:500])
            self._fail(recipe, warm, self._refusal(recipe) or "")
            return
        if recipe.user_managed and not marks.older_than(warm.began_ns):
            self._fail(recipe, warm, "its environment changed while its warm process was loading")
            return
        warm.environment = marks
        self._deaths.pop(recipe, None)
        log.info("warm process", action="warm_ready", pid=warm.server.pid, seconds=told["seconds"])
        warm.ready.set_result(_Told(frozenset(told["modules"]), tuple(told["startup"])))
        self._make_room(recipe, self.limits.count)

    def _ended(self, recipe: Recipe, warm: _Warm, reason: str) -> None:
        """It died while it was loading: it gets a few tries, somebody may have killed it."""
        self._deaths[recipe] = self._deaths.get(recipe, 0) + 1
        if self._deaths[recipe] >= TRIES:
            self._deaths.pop(recipe)
            self._refuse(recipe, reason)
        self._fail(recipe, warm, reason)

    def _fail(self, recipe: Recipe, warm: _Warm, reason: str) -> None:
        warm.ready.set_exception(ColdError(reason))
        warm.ready.exception()
        self._drop(recipe)

    def _make_room(self, wanted: Recipe, count: int) -> None:
        """Drop the least recently used until at most ``count`` are left and their memory fits.

        One that is loading is the last to leave: a run may be waiting for it.
        """
        alike = [
            (recipe, warm) for recipe, warm in self._warm.items() if recipe.plain == wanted.plain
        ]
        alike.sort(key=lambda each: (not each[1].ready.done(), each[1].used))
        by_use = [recipe for recipe, _ in alike]
        memory = {recipe: _memory(self._warm[recipe].server.pid) for recipe in by_use}
        while by_use and (
            len(by_use) > count or sum(memory[r] for r in by_use) > self.limits.memory_bytes
        ):
            oldest = by_use.pop(0)
            if not by_use and memory[oldest] > self.limits.memory_bytes:
                self._refuse(oldest, "its warm process needs more memory than this node allows")
            self._drop(oldest)

    def _drop(self, recipe: Recipe) -> None:
        warm = self._warm.pop(recipe, None)
        if warm is None:
            return
        _end(warm)
        if not warm.ready.done():
            warm.ready.set_exception(ColdError("its warm process was dropped while it was loading"))
            warm.ready.exception()

    def _refuse(self, recipe: Recipe, reason: str) -> None:
        log.warning("no warm process", action="warm_refused", python=recipe.python, reason=reason)
        self._refused[recipe] = (environment_of(recipe.python), reason)

    def _refusal(self, recipe: Recipe) -> str | None:
        """Why there will be none, as long as the environment is the same."""
        marks, reason = self._refused.get(recipe, (None, None))
        return reason if marks is not None and marks.still() else None


def _end(warm: _Warm) -> None:
    if warm.loading is not None and not warm.ready.done():
        # Its number may be another's as soon as it is closed: nobody listens to it then.
        warm.ready.get_loop().remove_reader(warm.server.link.fileno())
        warm.loading.cancel()
    warm.server.close()


async def _hear(server: ForkServer) -> dict[str, Any]:
    """What a server says when it has loaded everything, or why it refuses."""
    loop, heard, number = asyncio.get_running_loop(), asyncio.Event(), server.link.fileno()
    loop.add_reader(number, heard.set)
    try:
        async with asyncio.timeout(LOAD_S):
            await heard.wait()
    finally:
        if server.link.fileno() == number:  # else it was dropped, the number may be another's
            loop.remove_reader(number)
    data = server.link.recv(TELL_BYTES)
    if not data:
        raise ConnectionResetError("it ended while it was loading")
    told: dict[str, Any] = json.loads(data)
    return told


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0
