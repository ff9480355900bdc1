"""What the service does when it hears a fact."""

from collections.abc import Awaitable, Callable

from stellwerk.events import Envelope, RunPreparing
from stellwerk_dataset.waiting import WaitingStore
from stellwerk_kit.failpoints import failpoint

Handler = Callable[[Envelope], Awaitable[None]]


def on_run_preparing(store: WaitingStore, fetch_hint: Callable[[], None]) -> Handler:
    """Pin a run's inputs; ``fetch_hint`` is called when web files must be read first."""

    async def handle(envelope: Envelope) -> None:
        preparing = envelope.event
        if not isinstance(preparing, RunPreparing):
            return
        failpoint("dataset.before_commit")
        if await store.prepare(envelope, preparing):
            fetch_hint()

    return handle
