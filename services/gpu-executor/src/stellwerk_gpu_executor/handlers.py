"""What the executor does with each event addressed to it."""

from dataclasses import dataclass

from stellwerk.events import Envelope, PoolTargetSet, RunAssigned, RunStopRequested
from stellwerk_gpu_executor.attempts import Attempts
from stellwerk_gpu_executor.store import Store
from stellwerk_kit.consumer import Handlers
from stellwerk_kit.failpoints import failpoint


@dataclass(frozen=True, slots=True)
class EventHandlers:
    """Each remembers first and acts then: a repeat finds the row and does nothing new."""

    store: Store
    attempts: Attempts

    def table(self) -> Handlers:
        """Event class → handler."""
        return {
            RunAssigned: self.on_assigned,
            RunStopRequested: self.on_stop_requested,
            PoolTargetSet: self.on_target_set,
        }

    async def on_assigned(self, envelope: Envelope) -> None:
        """Accept an attempt once and begin it."""
        assigned = envelope.event
        if isinstance(assigned, RunAssigned) and await self.store.accept(assigned):
            failpoint("gpu-executor.after_accept")
            self.attempts.begin(assigned, given_at=envelope.time.timestamp())

    async def on_stop_requested(self, envelope: Envelope) -> None:
        """Stop an attempt; an unknown one has ended by that."""
        event = envelope.event
        if isinstance(event, RunStopRequested):
            await self.store.request_stop(event)
            await self.attempts.stop(event)

    async def on_target_set(self, envelope: Envelope) -> None:
        """Provide so many nodes."""
        if isinstance(envelope.event, PoolTargetSet):
            await self.store.set_target(envelope.event)
