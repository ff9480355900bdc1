"""Readers that wait until something changes: woken when it does, never by a timer."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

from stellwerk.errors import ServiceUnavailableError

MAX_WAITING = 20_000
MAX_WAIT_S = 20.0
HASTE_S = 0.25

T = TypeVar("T")


class Wakeups:
    """Waiters by key (``run/<id>``, ``log/<owner>``, ``metric/<run>``)."""

    def __init__(self) -> None:
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self._calm_at = 0.0
        self.haste = asyncio.Event()
        """Set for a quarter of a second after a wait began: what comes is taken up at once.

        Who follows a run waits anew after each piece of news, so his run's next is never held
        back. Who has waited longer does not keep the rest of the platform from lingering.
        """

    def notify(self, keys: Iterable[str]) -> None:
        """Let everybody who waits for one of ``keys`` look again."""
        for key in keys:
            for event in self._waiting.get(key, ()):
                event.set()

    async def until(
        self, keys: Iterable[str], wait_s: float, look: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        """What ``look`` finds, tried at once and after each change, for ``wait_s`` seconds.

        None when it finds nothing in time. Raises ServiceUnavailableError with too many waiters.
        """
        found = await look() if wait_s <= 0 else None
        if found is not None or wait_s <= 0:
            return found
        if self._count >= MAX_WAITING:
            raise ServiceUnavailableError(
                f"{MAX_WAITING} readers wait already; try again", code="history.busy"
            )
        event, watched = asyncio.Event(), tuple(keys)
        self._add(watched, event)
        try:
            return await self._look_until(event, wait_s, look)
        finally:
            self._remove(watched, event)

    async def _look_until(
        self, event: asyncio.Event, wait_s: float, look: Callable[[], Awaitable[T | None]]
    ) -> T | None:
        deadline = asyncio.get_running_loop().time() + wait_s
        while True:
            event.clear()
            found = await look()
            if found is not None:
                return found
            self._hurry()
            try:
                async with asyncio.timeout_at(deadline):
                    await event.wait()
            except TimeoutError:
                return None

    def _hurry(self) -> None:
        now = asyncio.get_running_loop().time()
        self._calm_at = now + HASTE_S
        if not self.haste.is_set():
            self.haste.set()
            self._calm()

    def _calm(self) -> None:
        """End the haste, or look again when its time is over."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._calm_at:
            loop.call_at(self._calm_at, self._calm)
        else:
            self.haste.clear()

    def _add(self, keys: tuple[str, ...], event: asyncio.Event) -> None:
        self._count += 1
        for key in keys:
            self._waiting.setdefault(key, set()).add(event)

    def _remove(self, keys: tuple[str, ...], event: asyncio.Event) -> None:
        self._count -= 1
        for key in keys:
            waiting = self._waiting.get(key, set())
            waiting.discard(event)
            if not waiting:
                self._waiting.pop(key, None)


def run_key(run_id: str) -> str:
    """Something in a run's status stream."""
    return f"run/{run_id}"


def log_key(owner: str) -> str:
    """A log of a run or of an environment's build."""
    return f"log/{owner}"


def metric_key(run_id: str) -> str:
    """Records of a run."""
    return f"metric/{run_id}"
