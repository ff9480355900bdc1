"""What the service does when it hears that a run ended, and how others wait for that."""

import asyncio
from contextlib import suppress

from stellwerk.events import Envelope, RunCanceled, RunCompleted, RunFailed
from stellwerk_kit.failpoints import failpoint
from stellwerk_model_registry.store import EndedRun, ModelStore


class RunBook:
    """Ended runs: written from events, read by registrations that may come before the event."""

    def __init__(self, store: ModelStore) -> None:
        self._store = store
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self.haste = asyncio.Event()
        """Set while a registration waits to hear of its run's end."""

    async def on_run_ended(self, envelope: Envelope) -> None:
        """Keep what the run left behind and wake who waits for it."""
        event = envelope.event
        if not isinstance(event, RunCompleted | RunFailed | RunCanceled):
            return
        failpoint("model-registry.before_commit")
        await self._store.remember_run(envelope, event)
        for waiter in self._waiting.get(event.run_id, ()):
            waiter.set()

    async def ended_run(self, run_id: str, wait_s: float) -> EndedRun | None:
        """What is known of a run, waiting up to ``wait_s`` seconds to hear of its end."""
        arrived = asyncio.Event()
        self._waiting.setdefault(run_id, set()).add(arrived)
        try:
            found = await self._store.ended_run(run_id)
            if found is None:
                self.haste.set()
                with suppress(TimeoutError):
                    await asyncio.wait_for(arrived.wait(), wait_s)
                # Asked once more after the time too: another replica may have heard of it.
                found = await self._store.ended_run(run_id)
            return found
        finally:
            self._waiting[run_id].discard(arrived)
            if not self._waiting[run_id]:
                del self._waiting[run_id]
            if not self._waiting:
                self.haste.clear()
