"""The warm processes of this node: one for each environment and set of early variables.

Each is a process inside an environment (`stellwerk_shim.warm`) that has the frameworks loaded and
forks a run's interpreter in milliseconds, in a sandbox where runs are. They are bounded by number
and memory, the least recently used leaves; each is begun anew after a number of forks, beside the
old one, which serves until its successor is ready.

In a user's own environment a run gets a plain one by itself, with nothing loaded but Python: it
starts at once and costs little. One with frameworks is there when a run has required it.
"""

import asyncio
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from stellwerk.events import RunAssigned
from stellwerk_gpu_executor import gpu_check
from stellwerk_gpu_executor.domain import Places
from stellwerk_gpu_executor.early_settings import (
    UnknowableError,
    applied,
    read_sources,
    settings_of,
)
from stellwerk_gpu_executor.fonts import Fonts
from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launching import WallsError
from stellwerk_gpu_executor.warm_choice import Choice, Limits
from stellwerk_gpu_executor.warm_identity import origins
from stellwerk_gpu_executor.warm_process import ColdError, WarmProcess
from stellwerk_gpu_executor.warm_refusals import Refusals
from stellwerk_gpu_executor.warm_rules import (
    READ_EARLY,
    Recipe,
    chosen_by,
    names_unseen,
    none_yet,
    recipe_of,
    shadowed,
    unfit,
)
from stellwerk_kit.clock import Clock
from stellwerk_kit.tasks import TaskOwner

TRIES = 3
"""So often one may die while it is loading, as somebody may have killed it."""

log = structlog.get_logger()


@dataclass
class WarmPool:
    """See the module's text. ``preload`` are the modules each loads, where they are installed."""

    folder: Path
    preload: tuple[str, ...]
    limits: Limits
    clock: Clock
    tasks: TaskOwner
    isolation: Isolation = field(default_factory=Isolation)
    fonts: Fonts = field(default_factory=Fonts)
    _warm: dict[Recipe, WarmProcess] = field(default_factory=dict)
    _next: dict[Recipe, WarmProcess] = field(default_factory=dict)
    """Successors of those in ``_warm``, until they take over."""
    _refusals: Refusals = field(default_factory=Refusals)
    _held: Counter[Recipe] = field(default_factory=Counter)
    """By how many runs that wait for it or are about to begin in it: it does not leave then."""
    _let_go: asyncio.Event = field(default_factory=asyncio.Event)
    _too_much: dict[bool, bool] = field(default_factory=dict)
    """Whether plain ones and others use more memory than they may, as held ones could not leave."""

    async def choose(
        self, assigned: RunAssigned, python: str, env: Mapping[str, str], places: Places
    ) -> Choice:
        """How a run begins. Raises ColdError for one that must begin warm and cannot.

        The process it begins in stays until `release` has been called with the choice.
        """
        must = assigned.spec.warm == "require"
        try:
            wanted, names = self._wanted(assigned, python, env, places)
        except (ColdError, UnknowableError) as error:
            if must:
                raise ColdError(str(error)) from error
            return Choice(reason=str(error))
        if must:
            await self._turn(wanted)
        self._held[wanted] += 1
        try:
            if must:
                await self._loaded(wanted)
            server = self.take(wanted, names, whatever_starts=must)
            if assigned.spec.resources.gpus:
                await self._leaves_gpus_alone(wanted)
            return Choice(server, recipe=wanted)
        except BaseException as error:
            self._release(wanted)
            if must or not isinstance(error, ColdError):
                raise
            return Choice(reason=str(error), recipe=wanted)

    def _wanted(
        self, assigned: RunAssigned, python: str, env: Mapping[str, str], places: Places
    ) -> tuple[Recipe, tuple[str, ...]]:
        """The process that would be right for a run, and the names of the run's own modules.

        Raises ColdError or UnknowableError where none can be.
        """
        reason = unfit(assigned, env, str(places.agent))
        if not self.limits.count:
            reason = reason or "warm starts are off on this node"
        if reason is not None:
            raise ColdError(reason)
        sources = read_sources(places.work, assigned.spec.script or "")
        settings = settings_of(sources.script, sources.helpers, READ_EARLY)
        env = applied(env, settings)
        chosen = chosen_by(assigned, [each.variable for each in settings])
        user_managed = assigned.image.interpreter is not None
        recipe = recipe_of(python, env, user_managed=user_managed)
        if user_managed and assigned.spec.warm != "require" and not self._is_ready(recipe):
            recipe = replace(recipe, plain=True)
        if reason := self.not_seen(recipe, chosen, env):
            raise ColdError(reason)
        return recipe, tuple(sources.names)

    def not_seen(self, recipe: Recipe, chosen: Iterable[str], env: Mapping[str, str]) -> str | None:
        """Why variables that users have ``chosen`` keep a run cold."""
        if self.isolation.views is None:
            return None
        inside = self.isolation.warm_inside(plain=recipe.plain)
        return names_unseen(recipe, chosen, env, inside=inside)

    def release(self, choice: Choice) -> None:
        """The run of a choice has begun, or never will."""
        if choice.server is not None and choice.recipe is not None:
            self._release(choice.recipe)

    def take(
        self, recipe: Recipe, names: Iterable[str] = (), *, whatever_starts: bool = True
    ) -> WarmServer:
        """The fork server for one run, whose own modules have these names. Raises ColdError.

        Code that an environment runs in every interpreter keeps a run cold, unless the caller
        takes it ``whatever_starts``: it may look at what the run is.
        """
        warm = self._current(recipe)
        if warm is None:
            raise ColdError(self._refusals.of(recipe) or none_yet(recipe, self._warm))
        if not warm.ready.done():
            raise ColdError("its warm process is still loading")
        told = warm.ready.result()
        if told.startup and recipe.user_managed and not whatever_starts:
            raise ColdError(f"{told.startup[0]} runs at the start of each interpreter there")
        reason = shadowed(told.modules, names)
        if reason is not None:
            raise ColdError(reason)
        assert warm.server is not None  # noqa: S101 - it is ready
        warm.forks += 1
        warm.used = self.clock.monotonic()
        return warm.server

    def want(self, recipe: Recipe) -> None:
        """Begin to load one in the background unless it is there or was refused."""
        if not self.limits.count or self._refusals.of(recipe) or self._current(recipe):
            return
        if not self._make_room(recipe, self.limits.count - 1):
            return
        warm = WarmProcess.of(recipe, self.folder, self.clock.monotonic())
        self._warm[recipe] = warm
        self._begin(recipe, warm)

    async def ready(self, recipe: Recipe) -> None:
        """Wait until there is one for ``recipe``, for its turn to load first. Raises ColdError."""
        await self._turn(recipe)
        self._held[recipe] += 1
        try:
            await self._loaded(recipe)
        finally:
            self._release(recipe)

    async def _loaded(self, recipe: Recipe) -> None:
        self.want(recipe)
        warm = self._warm.get(recipe)
        if warm is None:
            raise ColdError(self._refusals.of(recipe) or "warm starts are off on this node")
        await asyncio.wait({warm.ready})
        warm.ready.result()

    def used(self, recipe: Recipe) -> None:
        """A run of it has ended: load it for the next one, or anew when it has forked enough."""
        warm = self._warm.get(recipe)
        if warm is not None and warm.forks >= max(self.limits.forks, warm.renew_after):
            self._renew(recipe, warm)
        if recipe not in self._warm:  # else the next run looks whether it is still right
            self.want(recipe)

    def broken(self, recipe: Recipe, server: WarmServer | None = None) -> None:
        """A fork of it, of this ``server``, did not begin: it is not asked again."""
        warm = self._warm.get(recipe)
        if warm is not None and server in {None, warm.server}:
            self._drop(recipe)

    def servers(self) -> list[WarmServer]:
        """Those there are, loading or ready."""
        return [warm.server for warm in self._all() if warm.server is not None]

    def close(self) -> None:
        """End all, and begin none any more; their runs go on.

        Who waits for one is not told: its run is for the next executor, it has not failed.
        """
        self.limits = replace(self.limits, count=0)
        for warm in self._all():
            self._end(warm)
        self._warm.clear()
        self._next.clear()

    async def _turn(self, recipe: Recipe) -> None:
        """Wait while as many as there may be are held by runs of others. Raises ColdError."""
        try:
            async with asyncio.timeout(self.limits.turn_s):
                while not self._has_place(recipe):
                    self._let_go.clear()
                    await self._let_go.wait()
        except TimeoutError:
            raise ColdError(
                f"it waited {self.limits.turn_s:g} s for its turn: as many warm processes as "
                f"this node may have ({self.limits.count}) were loading for other runs; submit it "
                "again, with warm='auto', or have STELLWERK_WARM_PROCESSES raised on the node"
            ) from None

    def _has_place(self, recipe: Recipe) -> bool:
        """Whether there is one for ``recipe`` or may be now; also where there never will be."""
        if not self.limits.count or self._refusals.of(recipe) or self._current(recipe):
            return True
        others = [each for each in self._held if each.plain == recipe.plain and each != recipe]
        return len(others) < self.limits.count

    def _release(self, recipe: Recipe) -> None:
        self._held[recipe] -= 1
        if self._held[recipe]:
            return
        del self._held[recipe]
        self._take_over(recipe)
        if self._too_much.get(recipe.plain):
            self._make_room(recipe, self.limits.count)
        self._let_go.set()

    async def _leaves_gpus_alone(self, recipe: Recipe) -> None:
        """Raises ColdError where loading it has touched a GPU, or nobody can tell."""
        warm = self._warm[recipe]
        if not warm.untouched:
            assert warm.server is not None  # noqa: S101 - it is ready
            reason = await asyncio.to_thread(gpu_check.touched, warm.server.pid)
            if reason == gpu_check.UNSEEN and self._warm.get(recipe) is warm:
                self._drop(recipe)  # it is gone
            if reason is not None:
                raise ColdError(reason)
            warm.untouched = True

    def _current(self, recipe: Recipe) -> WarmProcess | None:
        warm = self._warm.get(recipe)
        if warm is not None and not warm.environment.still():
            self._drop(recipe)
            return None
        return warm

    def _is_ready(self, recipe: Recipe) -> bool:
        warm = self._warm.get(recipe)
        return warm is not None and warm.ready.done()

    def _all(self) -> list[WarmProcess]:
        return [*self._warm.values(), *self._next.values()]

    def _begin(self, recipe: Recipe, warm: WarmProcess) -> None:
        warm.loading = self.tasks.spawn(self._load(recipe, warm), f"warm-{warm.home.name}")

    async def _load(self, recipe: Recipe, warm: WarmProcess) -> None:
        modules = () if recipe.plain else self.preload
        try:
            told = await warm.load(modules, self.isolation, self.limits.memory_bytes)
            marks = origins(warm.home) if recipe.user_managed else warm.environment
        except (ColdError, WallsError, OSError, ValueError) as error:
            tries = TRIES if isinstance(error, ConnectionResetError) else 1
            reason = f"its warm process refuses to serve: {error}"[:500]
            self._fail(recipe, warm, reason, tries)
            return
        if recipe.user_managed and not marks.older_than(warm.began_ns):
            self._fail(recipe, warm, "its environment changed while its warm process was loading")
            return
        warm.loaded_bytes = warm.memory()
        if warm.loaded_bytes > self.limits.memory_bytes:
            reason = "its warm process needs more memory than this node allows"
            self._fail(recipe, warm, reason, tries=1)
            return
        warm.environment = marks
        self.fonts.learn(recipe.python, warm.home)
        self._refusals.loaded(recipe)
        log.info("warm process", action="warm_ready", home=warm.home.name, seconds=told.seconds)
        warm.ready.set_result(told)
        self._take_over(recipe)
        self._make_room(recipe, self.limits.count)

    def _fail(
        self, recipe: Recipe, warm: WarmProcess, reason: str, tries: int | None = None
    ) -> None:
        """It was not loaded; None: that counts for nothing. One that it was to follow goes on."""
        warm.ready.set_exception(ColdError(reason))
        warm.ready.exception()
        if self._next.get(recipe) is warm:
            self._put_off(recipe, reason)
            return
        if tries is not None:
            self._refusals.failed(recipe, reason, tries)
        self._drop(recipe)

    def _renew(self, recipe: Recipe, warm: WarmProcess) -> None:
        """It has forked enough: begin its successor, beside it unless both are too much."""
        if recipe in self._next:
            return
        alike = [each for each in self._all() if each.recipe.plain == recipe.plain]
        memory = warm.loaded_bytes + sum(each.memory() for each in alike)
        if len(alike) < self.limits.count and memory <= self.limits.memory_bytes:
            now = self.clock.monotonic()
            self._next[recipe] = WarmProcess.of(recipe, self.folder, now, beside=warm.home)
            self._begin(recipe, self._next[recipe])
        elif not self._held[recipe]:
            self._drop(recipe)

    def _take_over(self, recipe: Recipe) -> None:
        """Have its successor serve, once that is ready and no run is about to begin in the old."""
        successor = self._next.get(recipe)
        if successor is None or not successor.ready.done() or self._held[recipe]:
            return
        del self._next[recipe]
        self._end(self._warm[recipe])
        self._warm[recipe] = successor

    def _put_off(self, recipe: Recipe, reason: str) -> None:
        """There is no successor for now. One is tried again after twice as many forks."""
        warm = self._warm[recipe]
        warm.renew_after = 2 * warm.forks
        log.warning(
            "warm process not renewed",
            action="warm_not_renewed",
            home=warm.home.name,
            reason=reason,
            forks=warm.forks,
            again_after=warm.renew_after,
        )
        self._end(self._next.pop(recipe))

    def _make_room(self, wanted: Recipe, count: int) -> bool:
        """Drop the least recently used until at most ``count`` are left and their memory fits.

        Successors leave first, as what they were to follow goes on. One that is loading leaves
        later than one that is ready, and one that is held by a run not at all. Returns whether at
        most ``count`` are left.
        """
        memory = {
            id(warm): warm.memory() for warm in self._all() if warm.recipe.plain == wanted.plain
        }

        def fits() -> bool:
            return len(memory) <= count and sum(memory.values()) <= self.limits.memory_bytes

        for recipe, warm in list(self._next.items()):
            if id(warm) in memory and not fits():
                self._put_off(recipe, "another warm process needs the room")
                del memory[id(warm)]
        alike = [each for each in self._warm.items() if id(each[1]) in memory]
        alike.sort(key=lambda each: (not each[1].ready.done(), each[1].used))
        for recipe, warm in alike:
            if not self._held[recipe] and not fits():
                self._drop(recipe)
                del memory[id(warm)]
        self._too_much[wanted.plain] = sum(memory.values()) > self.limits.memory_bytes
        return len(memory) <= count

    def _drop(self, recipe: Recipe) -> None:
        """End one, and its successor."""
        for there in (self._warm, self._next):
            warm = there.pop(recipe, None)
            if warm is not None:
                self._end(warm)
                if not warm.ready.done():
                    why = "its warm process was dropped while it was loading"
                    warm.ready.set_exception(ColdError(why))
                    warm.ready.exception()

    def _end(self, warm: WarmProcess) -> None:
        if warm.out_of_memory():
            log.warning("warm process out of memory", action="warm_oom", home=warm.home.name)
        warm.end()
        if warm.walls is not None:
            self.isolation.clear_warm(warm.walls)
