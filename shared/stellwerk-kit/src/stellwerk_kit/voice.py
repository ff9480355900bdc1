"""Facts that are said without a row of the store.

A fact goes through the outbox where it belongs to what a transaction writes. One that its speaker
says again whenever its cause comes again needs no such promise: it is published straight away, and
the cause is settled after that. Either the fact only says what is the case anyway (``ImageReady``
of an environment that is there, ``AttemptStarted``), or hearing it is what changes its speaker's
rows (``RunArchived``: history's projection seals the logs and takes the row that the archive is
owed). Ids are made of what a fact says, so whoever hears it twice knows it.
"""

from dataclasses import dataclass

from stellwerk.errors import ServiceUnavailableError
from stellwerk.events import Envelope, Event
from stellwerk_kit.bus import Bus, Published
from stellwerk_kit.clock import Clock


@dataclass(frozen=True, slots=True)
class Voice:
    """Publishes facts under a service's name."""

    bus: Bus
    clock: Clock
    source: str

    async def say(self, event: Event, *, causation_id: str | None = None) -> Published | None:
        """Where the broker has the fact now; None where it has not, then the outbox is the way.

        Raises ProtocolError for an event beyond 256 KiB.
        """
        now = self.clock.now()
        envelope = Envelope.wrap(event, source=self.source, time=now, causation_id=causation_id)
        try:
            return await self.bus.publish(envelope)
        except ServiceUnavailableError:
            return None
