"""Which environments leave the cache, and their leaving. ``doomed`` is pure."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from stellwerk.api import PrunedEnvironment, PruneView
from stellwerk_environment_build.cache import EnvironmentCache, Ready, Usage
from stellwerk_environment_build.known_layers import KnownLayers
from stellwerk_kit.clock import Clock

if TYPE_CHECKING:
    from stellwerk_environment_build.images import ImageMaker

SPARED_S = 600.0
"""What was asked for so recently stays: a run may be on its way to it."""

log = structlog.get_logger()


@dataclass(frozen=True)
class Wanted:
    """What to prune: what was not used for so long, then the longest unused down to a size."""

    older_than_s: float | None = None
    max_bytes: int | None = None
    in_use: Collection[str] = ()
    dry_run: bool = False
    from_registry: bool = False


def doomed(found: Sequence[Usage], wanted: Wanted, now: float) -> list[Usage]:
    """Those to go, longest unused first."""

    def idle(each: Usage) -> float:
        return now - each.last_used

    free = sorted(
        (each for each in found if each.env_id not in wanted.in_use and idle(each) >= SPARED_S),
        key=lambda each: each.last_used,
    )
    limit_s = wanted.older_than_s
    old = [each for each in free if limit_s is not None and idle(each) >= limit_s]
    left = sum(each.bytes for each in found) - sum(each.bytes for each in old)
    for each in free[len(old) :]:
        if wanted.max_bytes is None or left <= wanted.max_bytes:
            break
        old.append(each)
        left -= each.bytes
    return old


@dataclass
class Pruner:
    """Prunes one cache and, where there are images, the engine and the registry."""

    cache: EnvironmentCache
    images: "ImageMaker | None"
    clock: Clock
    _alone: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def prune(self, wanted: Wanted) -> PruneView:
        """Remove what is doomed; an environment that is being built anew stays."""
        async with self._alone:
            found = await asyncio.to_thread(self.cache.usage)
            going = doomed(found, wanted, self.clock.now().timestamp())
            gone = [each for each in going if wanted.dry_run or await self._remove(each, wanted)]
        removed = tuple(
            PrunedEnvironment(env_id=each.env_id, bytes=each.bytes, idle_s=self._idle(each))
            for each in gone
        )
        freed = sum(each.bytes for each in gone)
        return PruneView(
            removed=removed,
            freed_bytes=freed,
            kept=len(found) - len(gone),
            kept_bytes=sum(each.bytes for each in found) - freed,
            dry_run=wanted.dry_run,
        )

    def _idle(self, each: Usage) -> float:
        return round(self.clock.now().timestamp() - each.last_used, 3)

    async def _remove(self, each: Usage, wanted: Wanted) -> bool:
        async with self.cache.lock(each.env_id):
            ready = self.cache.known(each.env_id)
            if ready is None or self.cache.last_used(each.env_id) != each.last_used:
                return False  # somebody came for it meanwhile
            await asyncio.to_thread(self.cache.discard, each.env_id)
        if self.images is not None and ready.image is not None:
            shared = await asyncio.to_thread(self._shared, ready)
            await self.images.discard(ready, from_registry=wanted.from_registry, shared=shared)
            await asyncio.to_thread(self._forget_layers)
        log.info("environment pruned", action="pruned", env_id=each.env_id, bytes=each.bytes)
        return True

    def _forget_layers(self) -> None:
        used = {layer for each in self.cache.all_ready() for layer in each.image_layers}
        KnownLayers(self.cache.layers).forget_all_but(used)

    def _shared(self, gone: Ready) -> bool:
        """Whether another environment is the same image, or stands on it."""
        return any(gone.image in {each.image, each.image_base} for each in self.cache.all_ready())
