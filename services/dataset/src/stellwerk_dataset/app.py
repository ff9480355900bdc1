"""Composition root of the dataset service."""

from stellwerk.api import DatasetRequest
from stellwerk.events import RunCompleted, RunPreparing
from stellwerk_dataset import reconcile
from stellwerk_dataset.egress import Guard
from stellwerk_dataset.fetcher import Fetcher
from stellwerk_dataset.handlers import on_run_completed, on_run_preparing
from stellwerk_dataset.producing import ProducingStore
from stellwerk_dataset.rewrites import Rewrites
from stellwerk_dataset.settings import Settings
from stellwerk_dataset.store import DatasetStore
from stellwerk_dataset.tables import metadata
from stellwerk_dataset.verbs import (
    DatasetFilesQuery,
    DatasetGet,
    DatasetList,
    DatasetPatchRequest,
    DatasetRegister,
    DatasetUnregister,
    DatastoreFilesQuery,
    DatastoreUpload,
    Verbs,
)
from stellwerk_dataset.waiting import CONSUMER, WaitingStore
from stellwerk_kit.service import Runtime


async def build(runtime: Runtime[Settings]) -> None:
    """Compose the service on ``runtime``."""
    settings = runtime.settings
    db = await runtime.database(metadata)
    objects = await runtime.objects()
    store, waiting = DatasetStore(db), WaitingStore(db)
    rewrites = Rewrites.load(settings.url_rewrites, settings.url_mirrors)
    guard = Guard(settings.egress_allow, settings.limits, ca_file=settings.egress_ca_file)
    fetcher = Fetcher(
        guard,
        objects,
        waiting,
        settings.data_dir / "fetch",
        runtime.spawn,
        settings.retry_delays_s,
        rewrites,
    )

    async def sweep() -> None:
        await reconcile.sweep(waiting, fetcher)

    fetches = runtime.every("fetches", reconcile.INTERVAL_S, sweep)
    fetches.hint()
    runtime.consume(
        CONSUMER,
        {
            RunPreparing: on_run_preparing(waiting, fetches.hint),
            RunCompleted: on_run_completed(ProducingStore(db), objects),
        },
    )

    verbs = Verbs(store, waiting, objects, fetcher, settings.egress_allow)
    runtime.rpc("dataset-create", DatasetRequest, verbs.create)
    runtime.rpc("dataset-register", DatasetRegister, verbs.register)
    runtime.rpc("dataset-patch", DatasetPatchRequest, verbs.patch)
    runtime.rpc("dataset-get", DatasetGet, verbs.get)
    runtime.rpc("dataset-list", DatasetList, verbs.list_registered)
    runtime.rpc("dataset-files", DatasetFilesQuery, verbs.files)
    runtime.rpc("dataset-unregister", DatasetUnregister, verbs.unregister)
    runtime.rpc("datastore-upload", DatastoreUpload, verbs.upload)
    runtime.rpc("datastore-files", DatastoreFilesQuery, verbs.datastore_files)
