"""The life of an attempt on this machine: prepare, start, follow, store, report.

Each step may be repeated after a crash: a started process is adopted, an interrupted preparation
is made anew, what was shipped is shipped again at most in part.
"""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import structlog

from stellwerk.errors import NotFoundError, ServiceUnavailableError, StellwerkError
from stellwerk.events import (
    AttemptProgressed,
    AttemptStarted,
    ExitSummary,
    LogClosure,
    RunAssigned,
    RunStopRequested,
    StoredOutput,
)
from stellwerk.ids import new_id
from stellwerk_gpu_executor import domain, missing_modules
from stellwerk_gpu_executor.attempt_dir import AttemptDir, ExitRecord
from stellwerk_gpu_executor.begin import Begin
from stellwerk_gpu_executor.hidden_paths import TAIL_BYTES, hint
from stellwerk_gpu_executor.isolation import Isolation
from stellwerk_gpu_executor.launching import Handle, Launcher, LaunchRequest
from stellwerk_gpu_executor.leases import LeaseClient
from stellwerk_gpu_executor.marks import KIND, Progress
from stellwerk_gpu_executor.mounts import Mounts
from stellwerk_gpu_executor.outputs import Outputs
from stellwerk_gpu_executor.prepare import PrepareError, Preparer, produced_folders
from stellwerk_gpu_executor.settings import Settings
from stellwerk_gpu_executor.shipper import Shipper
from stellwerk_gpu_executor.site_folders import site_folders
from stellwerk_gpu_executor.store import Store
from stellwerk_gpu_executor.warm import WarmPool
from stellwerk_gpu_executor.warm_rules import Recipe
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import Clock
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.run_tokens import RunClaims, issue
from stellwerk_kit.tasks import TaskOwner
from stellwerk_kit.voice import Voice

LOGS_SCAN_S = 1.0
SMALL_LOG_BYTES = 1 << 20
"""So much is hashed in the time that waking a thread takes."""
PACE_S = 0.08
"""Between two shipments while output keeps coming: a line after silence is never delayed."""
T = TypeVar("T")

log = structlog.get_logger()


@dataclass
class Attempt:
    """A live attempt. ``lease_deadline`` is on the monotonic clock, margin already taken off."""

    assigned: RunAssigned
    lease_deadline: float
    given_at: float | None = None
    """When the scheduler decided it, in epoch seconds; None for one that was taken up again."""
    handle: Handle | None = None
    stop_reason: str | None = None
    timings: dict[str, float] = field(default_factory=dict)
    warm: Recipe | None = None
    """The warm process that serves runs like it."""
    stopped: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def key(self) -> tuple[str, int]:
        """Run and attempt number."""
        return self.assigned.run_id, self.assigned.attempt

    def not_started(self) -> PrepareError:
        """What is said of one that was stopped in time."""
        return PrepareError(
            "canceled" if self.stop_reason == "canceled" else "superseded",
            "the attempt was stopped before its process was started",
        )

    def stop(self, reason: str, grace_s: float | None = None) -> None:
        """End it; before its process is there, it will not be started."""
        self.stop_reason = self.stop_reason or reason
        self.stopped.set()
        if self.handle is not None:
            self.handle.stop(reason, grace_s)

    def renew(self, deadline: float) -> None:
        """Let it live until that monotonic time."""
        self.lease_deadline = deadline
        if self.handle is not None:
            self.handle.renew(deadline)


@dataclass
class Attempts:
    """All live attempts of this executor."""

    settings: Settings
    bus: Bus
    clock: Clock
    tasks: TaskOwner
    store: Store
    objects: ObjectStore
    preparer: Preparer
    launcher: Launcher
    leases: LeaseClient
    token_key: bytes | None
    warm: WarmPool
    isolation: Isolation
    mounts: Mounts
    voice: Voice
    live: dict[tuple[str, int], Attempt] = field(default_factory=dict)

    async def resume(self) -> None:
        """Take up what an earlier process of this executor left."""
        for row in await self.store.live():
            self.begin(row.assigned, stop_reason=row.stop_reason)

    def begin(
        self,
        assigned: RunAssigned,
        *,
        stop_reason: str | None = None,
        given_at: float | None = None,
    ) -> None:
        """Start the life of an attempt; an attempt that is alive already is left alone."""
        key = (assigned.run_id, assigned.attempt)
        if key in self.live:
            return
        lease = assigned.lease_s - domain.lease_margin(assigned.lease_s)
        attempt = Attempt(
            assigned, self.clock.monotonic() + lease, given_at, stop_reason=stop_reason
        )
        self.live[key] = attempt
        self.tasks.spawn(self._live(attempt), f"attempt-{assigned.run_id}-{assigned.attempt}")

    async def stop(self, event: RunStopRequested) -> None:
        """Stop an attempt if it lives here."""
        attempt = self.live.get((event.run_id, event.attempt))
        if attempt is not None:
            attempt.stop(event.reason, event.grace_s)

    def folder(self, assigned: RunAssigned) -> Path:
        """Folder of an attempt."""
        name = f"{assigned.run_id}-{assigned.attempt}"
        return self.settings.executor_dir / "attempts" / name

    async def _live(self, attempt: Attempt) -> None:
        folder = AttemptDir(self.folder(attempt.assigned))
        try:
            try:
                summary = await self._to_the_end(attempt, folder)
            except Exception:
                log.exception("attempt given up", action="attempt_failed", run_id=attempt.key[0])
                summary = await self._give_up(attempt)
            failpoint("gpu-executor.before_exit_report")
            await self.store.exited(attempt.assigned, summary)
            await self.mounts.release(folder.path)
            await self.launcher.cleanup(attempt.handle.attempt if attempt.handle else folder)
            if attempt.warm is not None:
                self.warm.used(attempt.warm)
        finally:
            self.live.pop(attempt.key, None)

    async def _give_up(self, attempt: Attempt) -> ExitSummary:
        """End an attempt this executor failed on; the scheduler tries it again elsewhere."""
        if attempt.handle is not None and attempt.handle.alive():
            attempt.handle.stop("superseded", 5.0)
            await attempt.handle.wait()
        message = "the executor failed on this attempt; its log says why"
        return ExitSummary(reason="outputs-failed", message=message)

    async def _to_the_end(self, attempt: Attempt, folder: AttemptDir) -> ExitSummary:
        handle = await self.launcher.adopt(folder)
        if handle is not None:
            await self.mounts.adopt(folder.path)
            attempt.lease_deadline = folder.read_lease() or attempt.lease_deadline
        else:
            try:
                handle = await self._start(attempt, folder)
            except PrepareError as error:
                return ExitSummary(reason=error.reason, message=str(error))
        attempt.handle, folder = handle, handle.attempt
        handle.renew(attempt.lease_deadline)
        if attempt.stop_reason is not None:
            handle.stop(attempt.stop_reason)
        # The first line does not wait for the commit of the report that the process is there.
        async with asyncio.TaskGroup() as both:
            both.create_task(self._report_start(attempt, folder))
            following = both.create_task(self._follow(attempt, folder, handle))
        return following.result()

    async def _start(self, attempt: Attempt, folder: AttemptDir) -> Handle:
        assigned = attempt.assigned
        started = time.monotonic()
        if self.isolation.refusal is not None:
            raise PrepareError("launch-failed", self.isolation.refusal)
        python = await self.preparer.interpreter(assigned)
        folder.create()
        layout = self._repeat(lambda: self.preparer.lay_out(assigned, folder.path))
        confirmed = self.leases.confirm(assigned, attempt, attempt.given_at)
        places, valid = await asyncio.gather(layout, confirmed)
        if attempt.stop_reason is not None or not valid:
            raise attempt.not_started()
        attempt.timings |= {"prepare": time.monotonic() - started, **places.seconds}
        self.warm.fonts.lay(python, places.home)
        prepared = time.monotonic()
        env = domain.environment(assigned, python, places, os.environ, self._access(assigned))
        argv = domain.command_line(assigned, python, places)
        if why := domain.impassable(argv, env):
            raise PrepareError("launch-failed", why)
        resources = assigned.spec.resources
        memory = resources.memory_mb
        request = LaunchRequest(
            folder=folder.path,
            run_id=assigned.run_id,
            attempt=assigned.attempt,
            argv=argv,
            cwd=places.work,
            env=env,
            grace_s=assigned.spec.grace_s,
            lease=attempt.lease_deadline,
            max_duration_s=assigned.spec.max_duration_s,
            memory_limit_bytes=None if memory is None else memory * 1024 * 1024,
            log_limit_bytes=self.settings.run_log_bytes,
            cpus=resources.cpus,
            gpus=resources.gpus,
            image=assigned.image.image,
            readable=self.preparer.readable(assigned, places, folder.path),
            python=Path(python),
            sources=site_folders(Path(python)) if assigned.image.interpreter is not None else (),
        )
        begin = Begin(self.warm, self.launcher, self.tasks)
        handle, attempt.warm = await begin(assigned, request, places, attempt.stopped)
        if handle is None:
            raise attempt.not_started()
        folder = handle.attempt
        if attempt.warm and not attempt.warm.plain and (folder.read_launch() or {}).get("warm"):
            attempt.timings["imports"] = 0.0  # until the script says more
        attempt.timings["launch"] = max(0.0, _began(folder, time.monotonic()) - prepared)
        return handle

    def _access(self, assigned: RunAssigned) -> domain.Access:
        end = domain.token_end(assigned, self.clock.now().timestamp())
        url = self.settings.gateway_url
        if self.token_key is None:
            return domain.Access(new_id(), end, url, signed=False)
        claims = RunClaims(assigned.run_id, assigned.attempt, assigned.workspace, end)
        return domain.Access(issue(self.token_key, claims), end, url)

    async def _repeat(self, make: Callable[[], Awaitable[T]]) -> T:
        """Wait for an object store that is away instead of failing the run."""
        while True:
            try:
                return await make()
            except ServiceUnavailableError as error:
                log.warning("waiting for storage", action="storage_wait", error=error.message)
                await asyncio.sleep(min(5.0, error.retry_after_s))

    async def _report_start(self, attempt: Attempt, folder: AttemptDir) -> None:
        shim = folder.read_shim()
        if shim is None:
            return
        assigned, launch = attempt.assigned, folder.read_launch() or {}
        started = AttemptStarted(
            run_id=assigned.run_id,
            attempt=assigned.attempt,
            node_id=assigned.node_id,
            executor_id=assigned.executor_id,
            started_at=shim.started_at,
            pid=shim.child_pid,
            timings_s=attempt.timings,
            warm=bool(launch.get("warm")),
            cold_reason=launch.get("cold_reason"),
        )
        # Whoever takes up the attempt after us says it again.
        if not await self.voice.say(started):
            await self.store.started(started)

    async def _follow(self, attempt: Attempt, folder: AttemptDir, handle: Handle) -> ExitSummary:
        assigned, work = attempt.assigned, folder.path / "work"
        produced = produced_folders(assigned, folder.path)
        outputs = Outputs(self.objects, folder, work, produced, self.clock)

        progress = Progress(_began(folder, self.clock.monotonic()))

        async def resolve(record: dict[str, object]) -> dict[str, object] | None:
            if record.get("k") == KIND:
                progress.take(record, time.monotonic())
            return await self._repeat(lambda: outputs.resolve(record))

        shipper = Shipper(self.bus, assigned.run_id, assigned.attempt, folder, resolve)
        meanwhile = _Meanwhile(handle.activity, lambda: self._upload_meanwhile(outputs), self.tasks)
        try:
            while handle.alive():
                handle.activity.clear()
                pace = self.clock.monotonic() + PACE_S
                await (shipper.ship(work) if meanwhile.look() else shipper.ship_log())
                await self._report_progress(assigned, progress)
                if handle.alive():  # its end, too, is an activity
                    await handle.activity.wait()
                if handle.alive() and (early := pace - self.clock.monotonic()) > 0:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(early):
                            await handle.wait()
            await shipper.ship(work)
            await self._report_progress(assigned, progress)
            record = self._hinted(await handle.wait(), folder)
            return await self._store_rest(record, shipper, outputs, work)
        finally:
            meanwhile.close()

    def _hinted(self, record: ExitRecord, folder: AttemptDir) -> ExitRecord:
        """With what to do where a script failed for a module, or a path that its walls hide."""
        container = self.settings.launcher == "docker"
        walled = container or self.isolation.views is not None
        if record.reason != "exited" or not record.exit_code:
            return record
        tail = folder.log_tail(TAIL_BYTES)
        told = missing_modules.hint(tail)
        if told is None and walled:
            seen = [folder.path, self.settings.environments_dir, *self.settings.sandbox_readable]
            told = hint(tail, map(str, seen), container=container)
        if told is None:
            return record
        return record.model_copy(update={"message": f"{record.message or ''}; {told}".lstrip("; ")})

    async def _store_rest(
        self, record: ExitRecord, shipper: Shipper, outputs: Outputs, work: Path
    ) -> ExitSummary:
        """After the end: all outputs, then what the event says."""
        failpoint("gpu-executor.before_outputs")
        manifest, skipped = await self._repeat(outputs.finish)
        produced: dict[str, StoredOutput] = {}
        if record.reason == "exited" and record.exit_code == 0:  # a failed run produces nothing
            produced, more = await self._repeat(outputs.finish_produced)
            skipped += more
        logs: tuple[LogClosure, ...] = (
            shipper.closures(work)
            if shipper.shipped < SMALL_LOG_BYTES
            else await asyncio.to_thread(shipper.closures, work)
        )
        return domain.exit_summary(
            record,
            manifest=manifest,
            outputs=produced,
            skipped=skipped,
            logs=logs,
            records=shipper.records,
        )

    async def _report_progress(self, assigned: RunAssigned, progress: Progress) -> None:
        cold_reason, steps = progress.cold_reason(), progress.news()
        if cold_reason or steps:
            await self.store.progressed(
                AttemptProgressed(
                    run_id=assigned.run_id,
                    attempt=assigned.attempt,
                    node_id=assigned.node_id,
                    executor_id=assigned.executor_id,
                    timings_s=steps,
                    cold_reason=cold_reason,
                )
            )

    async def _upload_meanwhile(self, outputs: Outputs) -> None:
        while True:
            await asyncio.sleep(self.settings.outputs_scan_s)
            with suppress(ServiceUnavailableError, NotFoundError, StellwerkError):
                await outputs.upload_settled()


class _Meanwhile:
    """What happens while a run goes on longer than a second.

    Files under ./logs have nobody to announce them: each second it is time to look. Outputs are
    uploaded by ``uploads``, from the first of those seconds on.
    """

    def __init__(
        self,
        activity: asyncio.Event,
        uploads: Callable[[], Coroutine[Any, Any, None]],
        tasks: TaskOwner,
    ) -> None:
        self._activity, self._uploads, self._tasks = activity, uploads, tasks
        self._task: asyncio.Task[None] | None = None
        self._due = False
        self._timer = asyncio.get_running_loop().call_later(LOGS_SCAN_S, self._tick)

    def look(self) -> bool:
        """Whether it is time to look; asked once each time."""
        due, self._due = self._due, False
        return due

    def close(self) -> None:
        """It is over."""
        self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _tick(self) -> None:
        self._task = self._task or self._tasks.spawn_quiet(self._uploads(), "outputs")
        self._due = True
        self._activity.set()
        self._timer = asyncio.get_running_loop().call_later(LOGS_SCAN_S, self._tick)


def _began(folder: AttemptDir, otherwise: float) -> float:
    """When the attempt's program was loaded, on this machine's monotonic clock."""
    shim = folder.read_shim()
    return otherwise if shim is None else shim.began_mono or shim.started_mono
