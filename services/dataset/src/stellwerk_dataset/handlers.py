"""What the service does when it hears a fact."""

from collections.abc import Awaitable, Callable

from stellwerk.events import Envelope, RunCompleted, RunPreparing
from stellwerk_dataset.producing import ProducingStore
from stellwerk_dataset.waiting import WaitingStore
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.objects import ObjectStore

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


def on_run_completed(store: ProducingStore, objects: ObjectStore) -> Handler:
    """Make datasets of a run's outputs."""

    async def handle(envelope: Envelope) -> None:
        completed = envelope.event
        if not isinstance(completed, RunCompleted) or not completed.outputs:
            return
        kept = completed.exit.outputs if completed.exit else {}
        manifests = {name: await objects.get_manifest(each.manifest) for name, each in kept.items()}
        failpoint("dataset.before_produce")
        await store.produce(envelope, completed, manifests)

    return handle
