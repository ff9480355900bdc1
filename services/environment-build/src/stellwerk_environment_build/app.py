"""The composition root: what the service is made of and what it listens to."""

import os
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
    Prune,
    ReadRecord,
    StartBuild,
)
from stellwerk_environment_build.interpreters import find_interpreters
from stellwerk_environment_build.pruning import Pruner
from stellwerk_environment_build.reconcile import Reconciler
from stellwerk_environment_build.registry import EnvironmentStore
from stellwerk_environment_build.settings import Settings
from stellwerk_environment_build.store import CONSUMER, BuildStore
from stellwerk_environment_build.tables import metadata
from stellwerk_environment_build.uv_command import proxies_in
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
        images=(images := await _images(settings, cache)),
        objects=None if images is None else await runtime.objects(),
        channels=settings.conda,
        sandbox=settings.cell,
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
    pruner = Pruner(cache, images, runtime.clock)
    registry = EnvironmentStore(db)
    handlers = Handlers(builder, builds, registry, pruner, builds_due, runtime.voice)
    await handlers.register_curated()
    runtime.consume(CONSUMER, {RunPreparing: handlers.on_run_preparing})
    runtime.rpc("environment-register", EnvironmentRequest, handlers.register)
    runtime.rpc("environment-get", NamedEnvironment, handlers.get)
    runtime.rpc("environment-list", ListEnvironments, handlers.list)
    runtime.rpc("environment-prune", Prune, handlers.prune)
    runtime.rpc("build-start", StartBuild, handlers.start_build)
    runtime.rpc("build-get", GetBuild, handlers.get_build)
    runtime.rpc("record-read", ReadRecord, handlers.read_record)


async def _images(settings: Settings, cache: EnvironmentCache) -> "ImageMaker | None":
    """What makes images, if they are wanted; clears away what a killed service left."""
    if settings.images == "none":
        return None
    from stellwerk_environment_build.image_engine import ImageSettings  # noqa: PLC0415 - slow
    from stellwerk_environment_build.images import ImageMaker  # noqa: PLC0415 - to load

    maker = ImageMaker(
        ImageSettings(
            base=settings.base_image,
            registry=settings.registry,
            registry_url=settings.registry_url,
            logins=settings.registry_logins,
            limit_s=settings.build_image_s,
            network=settings.build_network,
            proxies=proxies_in(os.environ),
            max_bytes=settings.build_image_bytes,
            memory_bytes=settings.build_memory_bytes,
            builder=cache.builder(),
            buildkit=settings.build_buildkit,
        )
    )
    await maker.sweep()
    return maker
