"""Periodic work of the executor: leases, folders nobody owns, the node cache."""

import shutil
from dataclasses import dataclass

import structlog

from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.attempts import Attempts
from stellwerk_gpu_executor.cache import BlobCache
from stellwerk_gpu_executor.launching import AttemptRunningError
from stellwerk_gpu_executor.parts import Parts

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Level-triggered: each round looks at what is there and takes no input."""

    attempts: Attempts
    cache: BlobCache
    parts: Parts

    async def renew_leases(self) -> None:
        """Renew the lease of every live attempt."""
        await self.attempts.leases.renew(list(self.attempts.live.values()))

    async def sweep(self) -> None:
        """Remove attempt folders (and their processes) that belong to no live attempt."""
        known = {self.attempts.folder(a.assigned).name for a in self.attempts.live.values()}
        root = self.attempts.settings.executor_dir / "attempts"
        await self.attempts.mounts.sweep(known)
        for path in root.iterdir() if root.exists() else ():
            if path.name in known:
                continue
            orphan = AttemptDir(path)
            handle = await self.attempts.launcher.adopt(orphan)
            if handle is not None and handle.alive():
                log.warning("orphan stopped", action="orphan_stopped", attempt=path.name)
                handle.stop("superseded", 5.0)
                await handle.wait()
            await self.attempts.mounts.release(path)
            try:
                await self.attempts.launcher.cleanup(orphan)
            except AttemptRunningError:
                log.warning("orphan still runs", action="orphan_alive", attempt=path.name)
                continue
            shutil.rmtree(path, ignore_errors=True)

    async def trim_cache(self) -> None:
        """Keep the node cache within its limit."""
        self.cache.evict()
        self.parts.trim(self.attempts.settings.cache_bytes // 4)
