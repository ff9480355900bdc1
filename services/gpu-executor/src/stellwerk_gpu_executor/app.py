"""Composition of the executor."""

import asyncio
import shutil
import socket

from stellwerk.events import NodeJoined
from stellwerk.ids import new_id
from stellwerk_gpu_executor import resources
from stellwerk_gpu_executor.attempts import Attempts
from stellwerk_gpu_executor.cache import BlobCache
from stellwerk_gpu_executor.handlers import EventHandlers
from stellwerk_gpu_executor.isolation import Isolation, isolate
from stellwerk_gpu_executor.launcher import ProcessLauncher
from stellwerk_gpu_executor.launching import Launcher
from stellwerk_gpu_executor.leases import LeaseClient
from stellwerk_gpu_executor.mount_server import MountServer
from stellwerk_gpu_executor.mounts import Mounts
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.parts import Parts
from stellwerk_gpu_executor.prepare import Preparer
from stellwerk_gpu_executor.reconcile import Reconciler
from stellwerk_gpu_executor.settings import Settings
from stellwerk_gpu_executor.spread import spread
from stellwerk_gpu_executor.store import Store, metadata
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_ahead import WarmAhead
from stellwerk_gpu_executor.warm_choice import Limits
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.run_tokens import load_key
from stellwerk_kit.service import Runtime
from stellwerk_kit.topology import executor_consumer

SWEEP_S = 60.0
AHEAD_S = 5.0


async def build(runtime: Runtime[Settings]) -> None:
    """Open everything, take up old attempts, join the cluster."""
    settings, boot_id = runtime.settings, new_id()
    spread(settings.executor_dir / "attempts")
    db = await runtime.database(metadata)
    objects = await runtime.objects()
    isolation = await asyncio.to_thread(isolate, settings)
    runtime.on_stop(isolation.close)
    launcher = await _launcher(runtime, isolation)
    cache = BlobCache(objects, settings.executor_dir / "cache", settings.cache_bytes)
    parts = Parts(objects, cache, settings.executor_dir / "parts", runtime.tasks)
    mounts = await _mounts(runtime, objects, parts, launcher)
    preparer = Preparer(
        objects,
        cache,
        settings.executor_dir,
        settings.environments_dir,
        mounts=mounts,
        lazy_from=settings.lazy_mount_bytes,
        host_interpreters=settings.host_interpreters,
        containers=settings.launcher == "docker",
    )
    preparer.install_agent()
    store = Store(db, settings.executor_id, boot_id, settings.max_nodes)
    leases = LeaseClient(
        runtime.bus,
        runtime.clock,
        settings.executor_id,
        boot_id,
        settings.scheduler_url,
        settings.read_credentials(settings.scheduler_credentials).get("token"),
    )
    attempts = Attempts(
        settings,
        runtime.bus,
        runtime.clock,
        runtime.tasks,
        store,
        objects,
        preparer,
        launcher,
        leases,
        None if settings.run_token_key is None else load_key(settings.run_token_key),
        _warm_pool(runtime, isolation),
        isolation,
        mounts,
        runtime.voice,
    )
    reconciler = Reconciler(attempts, cache, parts)

    runtime.on_stop(leases.close)
    await attempts.resume()
    await store.join(
        NodeJoined(
            executor_id=settings.executor_id,
            boot_id=boot_id,
            hostname=socket.gethostname()[:64],
            resources=resources.machine(),
            max_nodes=settings.max_nodes,
            pools=settings.pools,
        )
    )
    runtime.consume(executor_consumer(settings.executor_id), EventHandlers(store, attempts).table())
    renew_s = 0.5 if settings.test_profile else 20.0
    runtime.every("renew-leases", renew_s, reconciler.renew_leases).hint()
    runtime.every("sweep", SWEEP_S, reconciler.sweep).hint()
    runtime.every("trim-cache", SWEEP_S, reconciler.trim_cache)
    if settings.warm_environments:
        ahead = WarmAhead(settings.warm_environments, runtime.bus, attempts.warm, preparer)
        runtime.every("warm-ahead", AHEAD_S, ahead.sweep).hint()


async def _mounts(
    runtime: Runtime[Settings], objects: ObjectStore, parts: Parts, launcher: Launcher
) -> Mounts:
    """Lazy mounts of datasets and what serves them; runs' mounts outlive this service."""
    settings = runtime.settings
    server = MountServer(parts, settings.executor_dir / "mounts.port")
    await server.start()
    runtime.on_stop(server.close)
    attempts = settings.executor_dir.absolute() / "attempts"
    off = "lazy mounts are off on this node (STELLWERK_LAZY_MOUNTS)"
    why = launcher.unseen(attempts) if settings.lazy_mounts else off
    return Mounts(server, objects, attempts, unavailable=why)


def _warm_pool(runtime: Runtime[Settings], isolation: Isolation) -> WarmPool:
    """Warm processes, closed with the service. A container cannot be forked into from outside."""
    settings = runtime.settings
    limits = Limits(
        count=settings.warm_processes if settings.launcher == "process" else 0,
        memory_bytes=settings.warm_memory_bytes,
        forks=settings.warm_forks,
    )
    folder = settings.executor_dir / "warm"
    shutil.rmtree(folder, ignore_errors=True)  # homes and logs of those that ended with us
    pool = WarmPool(
        folder,
        settings.preload,
        limits,
        runtime.clock,
        runtime.tasks,
        isolation,
    )

    async def close() -> None:
        pool.close()

    runtime.on_stop(close)
    return pool


async def _launcher(runtime: Runtime[Settings], isolation: Isolation) -> Launcher:
    """What starts runs here, closed with the service."""
    settings = runtime.settings
    if settings.launcher == "process":
        notify = NotifyServer(settings.executor_dir / "notify.sock")
        await notify.start()
        runtime.on_stop(notify.close)
        processes = ProcessLauncher(
            notify, clock=runtime.clock, walls=isolation, gpus=resources.gpu_ids()
        )
        runtime.on_stop(processes.close)
        folder = settings.executor_dir / "attempts"
        runtime.every("sweep-cgroups", SWEEP_S, lambda: isolation.sweep(folder)).hint()
        return processes
    from stellwerk_gpu_executor.docker_launcher import (  # noqa: PLC0415 - its library is slow to load
        open_launcher,
    )

    # A folder of its own, for containers: the socket in it is made anew with each start of ours.
    folder = settings.executor_dir / "notify"
    folder.mkdir(exist_ok=True)
    folder.chmod(0o711)
    notify = NotifyServer(folder / "sock", mode=0o666)
    await notify.start()
    runtime.on_stop(notify.close)
    containers = await open_launcher(settings, notify, runtime.clock)
    runtime.on_stop(containers.close)
    attempts = settings.executor_dir / "attempts"
    runtime.every("sweep-containers", SWEEP_S, lambda: containers.sweep(attempts)).hint()
    return containers
