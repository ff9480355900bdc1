"""Starts every build that the store says is to be done and that is not under way here."""

import asyncio

import structlog

from stellwerk.errors import ProtocolError
from stellwerk_environment_build.builder import Builder, BuildResult
from stellwerk_environment_build.domain import Job
from stellwerk_environment_build.failures import BuildFailedError, Failure, untold
from stellwerk_environment_build.log_stream import LogStream
from stellwerk_environment_build.store import BuildStore
from stellwerk_kit.bus import Bus
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.tasks import TaskOwner

log = structlog.get_logger()

_UNEXPECTED = Failure(
    "internal",
    "env.build_failed",
    "The environment could not be built for a reason that is not yours; tell the operator.",
    retryable=True,
)
_WORTH_ANOTHER_TRY = {"index-unreachable", "killed"}
_PASSES = {"env.engine_unreachable"}
"""Not yours to mend, and over soon as a rule: an engine restarts."""


class Reconciler:
    """Runs builds: at most ``parallel`` at a time, each with its log on the bus."""

    def __init__(
        self,
        store: BuildStore,
        builder: Builder,
        bus: Bus,
        tasks: TaskOwner,
        *,
        parallel: int,
        retries: int,
        retry_s: float,
    ) -> None:
        self._store, self._builder, self._bus, self._tasks = store, builder, bus, tasks
        self._gate = asyncio.Semaphore(parallel)
        self._retries, self._retry_s = retries, retry_s
        self._running: dict[str, asyncio.Task[None]] = {}

    async def sweep(self) -> None:
        """Start what is due."""
        for job in await self._store.due():
            if job.env_id not in self._running:
                task = self._tasks.spawn(self._run(job), f"build-{job.env_id}")
                self._running[job.env_id] = task

    async def stop(self) -> None:
        """Cut builds short; the store keeps them for the next start."""
        for task in list(self._running.values()):
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self, job: Job) -> None:
        lines = LogStream(self._bus, job.env_id, job.build)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(lines.pump())
                try:
                    async with self._gate:
                        await self._build(job, lines)
                finally:
                    lines.close()
        finally:
            del self._running[job.env_id]

    async def _build(self, job: Job, lines: LogStream) -> None:
        failpoint("environment-build.before_build")
        try:
            result = await self._try(job, lines)
        except BuildFailedError as error:
            failure = error.failure
            log.info(
                "environment not built",
                action="build_failed",
                env_id=job.env_id,
                build=job.build,
                reason=failure.reason,
                code=failure.code,
            )
            await self._store.fail(job, failure)
            return
        except Exception:
            log.exception("build broke", action="build_broke", env_id=job.env_id)
            await self._store.fail(job, _UNEXPECTED)
            return
        failpoint("environment-build.before_finish")
        try:
            ready, cached, seconds = result.ready, result.cached, result.seconds
            await self._store.finish(job, ready, cached=cached, seconds=seconds)
        except ProtocolError as error:
            log.exception("environment not told", action="build_untold", env_id=job.env_id)
            await self._store.fail(job, untold(error))
            return
        log.info(
            "environment ready",
            action="build_ready",
            env_id=job.env_id,
            build=job.build,
            seconds=result.seconds,
        )

    async def _try(self, job: Job, lines: LogStream) -> BuildResult:
        """Build, and again when the fault is likely to pass."""
        for again in range(self._retries):
            try:
                return await self._builder.build(
                    job.spec, job.env_id, lines.line, rebuild=job.rebuild
                )
            except BuildFailedError as error:
                failure = error.failure
                if failure.reason not in _WORTH_ANOTHER_TRY and failure.code not in _PASSES:
                    raise
                pause = self._retry_s * 2**again
                lines.line(f"Trying again in {pause:g} s ({again + 1} of {self._retries})")
                await asyncio.sleep(pause)
        return await self._builder.build(job.spec, job.env_id, lines.line, rebuild=job.rebuild)
