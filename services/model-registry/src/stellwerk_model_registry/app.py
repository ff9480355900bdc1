"""Composition root of the model registry."""

from stellwerk.events import RunCanceled, RunCompleted, RunFailed
from stellwerk_kit.service import Runtime
from stellwerk_model_registry import reconcile
from stellwerk_model_registry.handlers import RunBook
from stellwerk_model_registry.settings import Settings
from stellwerk_model_registry.store import CONSUMER, ModelStore
from stellwerk_model_registry.tables import metadata
from stellwerk_model_registry.verbs import (
    GivenModel,
    ModelDelete,
    ModelGet,
    ModelList,
    ModelPatchRequest,
    ModelRegister,
    Verbs,
)


async def build(runtime: Runtime[Settings]) -> None:
    """Compose the service on ``runtime``."""
    settings = runtime.settings
    store = ModelStore(await runtime.database(metadata))
    objects = await runtime.objects()
    book = RunBook(store)
    ended = (RunCompleted, RunFailed, RunCanceled)
    runtime.consume(CONSUMER, dict.fromkeys(ended, book.on_run_ended), book.haste)

    async def sweep() -> None:
        await reconcile.sweep(store, runtime.clock, settings.unsuccessful_days)

    runtime.every("forget-runs", reconcile.INTERVAL_S, sweep)

    verbs = Verbs(store, book, objects, settings.run_wait_s)
    runtime.rpc("model-register", ModelRegister, verbs.register)
    runtime.rpc("model-register-given", GivenModel, verbs.register_given)
    runtime.rpc("model-get", ModelGet, verbs.get)
    runtime.rpc("model-list", ModelList, verbs.list_models)
    runtime.rpc("model-patch", ModelPatchRequest, verbs.patch)
    runtime.rpc("model-delete", ModelDelete, verbs.delete)
    runtime.rpc("model-files", ModelGet, verbs.files)
