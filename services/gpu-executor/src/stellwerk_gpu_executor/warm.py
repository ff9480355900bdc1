"""The warm processes of this node: one for each environment and set of early variables.

Each is a fork server inside an environment (`stellwerk_shim.nursery`) that has the frameworks
loaded and forks a run's supervisor and interpreter in milliseconds. They are bounded by number and
memory, the least recently used leaves; each is begun anew after a number of forks.
"""

import asyncio
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
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
from stellwerk_gpu_executor.warm_rules import READ_EARLY, Recipe, recipe_of, shadowed, unfit
from stellwerk_kit.clock import Clock
from stellwerk_kit.tasks import TaskOwner

LINK = 3
LOAD_S = 180.0
TELL_BYTES = 1 << 20
_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be, with how much memory in all, and how often one may fork."""

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


@dataclass
class _Warm:
    server: ForkServer
    environment: tuple[int, int]
    used: float
    ready: "asyncio.Future[frozenset[str]]"
    forks: int = 0


@dataclass
class WarmPool:
    """See the module's text. ``preload`` are the modules each loads, where they are installed."""

    folder: Path
    preload: tuple[str, ...]
    limits: Limits
    clock: Clock
    tasks: TaskOwner
    _warm: dict[Recipe, _Warm] = field(default_factory=dict)
    _refused: dict[Recipe, tuple[tuple[int, int], str]] = field(default_factory=dict)

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
        wanted = recipe_of(python, applied(env, set_by_script))
        try:
            if must:
                await self.ready(wanted)
            return Choice(self.take(wanted, sources.names), recipe=wanted)
        except ColdError as error:
            if must:
                raise
            return Choice(reason=str(error), recipe=wanted)

    def take(self, recipe: Recipe, names: Iterable[str] = ()) -> ForkServer:
        """The fork server for one run, whose own modules have these names. Raises ColdError."""
        warm = self._current(recipe)
        if warm is None:
            raise ColdError(self._refusal(recipe) or "its environment has no warm process yet")
        if not warm.ready.done():
            raise ColdError("its warm process is still loading")
        reason = shadowed(warm.ready.result(), names)
        if reason is not None:
            raise ColdError(reason)
        warm.forks += 1
        warm.used = self.clock.monotonic()
        return warm.server

    def want(self, recipe: Recipe) -> None:
        """Begin to load one in the background unless it is there or was refused."""
        if not self.limits.count or self._refusal(recipe) or self._current(recipe):
            return
        self._make_room(self.limits.count - 1)
        try:
            warm = self._begin(recipe)
        except OSError as error:
            self._refuse(recipe, f"its warm process cannot be started: {error.strerror}")
            return
        self._warm[recipe] = warm
        self.tasks.spawn(self._load(recipe, warm), f"warm-{warm.server.pid}")

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
        self.want(recipe)

    def broken(self, recipe: Recipe) -> None:
        """A fork of it did not begin: it is not asked again."""
        self._drop(recipe)

    def close(self) -> None:
        """End all; their runs go on."""
        for recipe in list(self._warm):
            self._drop(recipe)

    def _current(self, recipe: Recipe) -> _Warm | None:
        warm = self._warm.get(recipe)
        if warm is not None and warm.environment != _identity(recipe):
            self._drop(recipe)
            return None
        return warm

    def _begin(self, recipe: Recipe) -> _Warm:
        name = hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]
        home = self.folder.absolute() / name
        home.mkdir(parents=True, exist_ok=True)
        env = {**dict(recipe.variables), "HOME": str(home)}
        command = [recipe.python, str(_ENTRY), "--warm", str(LINK), *self.preload]
        output = str(self.folder / f"{name}.log")
        server = ForkServer(command, env, LINK, output)
        future: asyncio.Future[frozenset[str]] = asyncio.get_running_loop().create_future()
        return _Warm(server, _identity(recipe), self.clock.monotonic(), future)

    async def _load(self, recipe: Recipe, warm: _Warm) -> None:
        try:
            told = await _hear(warm.server)
            if "refused" in told:
                raise ColdError(str(told["refused"]))
        except (ColdError, OSError, ValueError, TimeoutError) as error:
            self._refuse(recipe, f"its warm process refuses to serve: {error}"[:500])
            warm.ready.set_exception(ColdError(self._refusal(recipe) or ""))
            warm.ready.exception()
            self._drop(recipe)
            return
        log.info("warm process", action="warm_ready", pid=warm.server.pid, seconds=told["seconds"])
        warm.ready.set_result(frozenset(told["modules"]))
        self._make_room(self.limits.count)

    def _make_room(self, count: int) -> None:
        """Drop the least recently used until at most ``count`` are left and their memory fits."""
        by_use = sorted(self._warm, key=lambda recipe: self._warm[recipe].used)
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
        if warm is not None:
            warm.server.close()

    def _refuse(self, recipe: Recipe, reason: str) -> None:
        log.warning("no warm process", action="warm_refused", python=recipe.python, reason=reason)
        self._refused[recipe] = (_identity(recipe), reason)

    def _refusal(self, recipe: Recipe) -> str | None:
        """Why there will be none, as long as the environment is the same."""
        identity, reason = self._refused.get(recipe, (None, None))
        return reason if identity == _identity(recipe) else None


async def _hear(server: ForkServer) -> dict[str, Any]:
    """What a server says when it has loaded everything, or why it refuses."""
    loop, heard = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(server.link.fileno(), heard.set)
    try:
        async with asyncio.timeout(LOAD_S):
            await heard.wait()
    finally:
        loop.remove_reader(server.link.fileno())
    data = server.link.recv(TELL_BYTES)
    if not data:
        raise ConnectionResetError("it ended while it was loading")
    told: dict[str, Any] = json.loads(data)
    return told


def _identity(recipe: Recipe) -> tuple[int, int]:
    """What changes when the environment is replaced: its folder's inode and time."""
    try:
        status = Path(recipe.python).parent.parent.stat()
    except OSError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns


def _memory(pid: int) -> int:
    try:
        return int(psutil.Process(pid).memory_full_info().pss)
    except psutil.Error:
        return 0
