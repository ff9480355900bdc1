"""The composition root: what the service is made of and what it listens to."""

from typing import TYPE_CHECKING

from stellwerk.api import EnvironmentRequest
from stellwerk.events import RunPreparing
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import EnvironmentCache
from stellwerk_environment_build.handlers import (
    GetBuild,
    Handlers,
    ListEnvironments,
    NamedEnvironment,
    ReadRecord,
    StartBuild,
)
from stellwerk_environment_build.interpreters import find_interpreters
from stellwerk_environment_build.reconcile import Reconciler
from stellwerk_environment_build.registry import EnvironmentStore
from stellwerk_environment_build.settings import Settings
from stellwerk_environment_build.store import CONSUMER, BuildStore
from stellwerk_environment_build.tables import metadata
from stellwerk_kit.service import Runtime

if TYPE_CHECKING:
    from stellwerk_environment_build.images import ImageMaker

SWEEP_S = 5.0


async def build(runtime: Runtime[Settings]) -> None:
    """Compose the service on ``runtime``."""
    settings = runtime.settings
    cache = EnvironmentCache(settings.environments_dir)
    interpreters = await find_interpreters(settings.build_interpreters)
    builder = Builder(
        cache,
        interpreters,
        index=settings.index,
        limits=settings.limits,
        overrides=settings.overrides,
        accelerator=settings.accelerator,
        images=await _images(settings),
        channels=settings.conda,
        clock=runtime.clock,
    )
    runtime.log.info(
        "composed",
        action="composed",
        pythons=[each.version for each in interpreters],
        swept=cache.sweep(),
        accelerator=settings.accelerator,
    )
    db = await runtime.database(metadata)
    builds = BuildStore(db)
    await builds.recover()
    reconciler = Reconciler(
        builds,
        builder,
        runtime.bus,
        runtime.tasks,
        parallel=settings.build_parallel,
        retries=settings.build_retries,
        retry_s=settings.retry_s,
    )
    runtime.on_stop(reconciler.stop)
    builds_due = runtime.every("builds", SWEEP_S, reconciler.sweep)
    builds_due.hint()
    handlers = Handlers(builder, builds, EnvironmentStore(db), builds_due)
    await handlers.register_curated()
    runtime.consume(CONSUMER, {RunPreparing: handlers.on_run_preparing})
    runtime.rpc("environment-register", EnvironmentRequest, handlers.register)
    runtime.rpc("environment-get", NamedEnvironment, handlers.get)
    runtime.rpc("environment-list", ListEnvironments, handlers.list)
    runtime.rpc("build-start", StartBuild, handlers.start_build)
    runtime.rpc("build-get", GetBuild, handlers.get_build)
    runtime.rpc("record-read", ReadRecord, handlers.read_record)


async def _images(settings: Settings) -> "ImageMaker | None":
    """What makes images, if they are wanted; clears away what a killed service left."""
    if settings.images == "none":
        return None
    from stellwerk_environment_build.images import (  # noqa: PLC0415 - its library is slow to load
        ImageMaker,
        ImageSettings,
    )

    login = settings.read_credentials(settings.registry_credentials)
    maker = ImageMaker(
        ImageSettings(settings.base_image, settings.registry, login or None, settings.build_image_s)
    )
    await maker.sweep()
    return maker
