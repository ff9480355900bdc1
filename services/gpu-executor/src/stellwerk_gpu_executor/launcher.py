"""Starts runs as processes that outlive this service, and finds them again after a restart.

Between the service and a run stands a supervisor (`stellwerk_shim`). It talks to us through the
files of the attempt folder and datagrams that say "look again"; its death is seen by pidfd.
Nothing here polls.
"""

import asyncio
import fcntl
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import structlog

from stellwerk_gpu_executor import processes
from stellwerk_gpu_executor.attempt_dir import AttemptDir, ExitRecord
from stellwerk_gpu_executor.forkserver import Spawned
from stellwerk_gpu_executor.gpu_shares import GpuShares, NoGpuError
from stellwerk_gpu_executor.handle import ProcessHandle
from stellwerk_gpu_executor.launching import (
    NOT_STARTED,
    AttemptRunningError,
    LaunchRequest,
    NotWarmError,
    Walls,
    WallsError,
    key,
)
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.removal import remove, remove_small
from stellwerk_gpu_executor.spawner import Spawner
from stellwerk_kit.clock import Clock, SystemClock
from stellwerk_kit.tasks import TaskOwner

START_TIMEOUT_S = 60.0
WARM_TIMEOUT_S = 10.0
LOCK_S = 0.02

log = structlog.get_logger()


class ProcessLauncher:
    """Launcher for plain processes; see Launcher. Without ``walls`` they are just that.

    A run that asks for some of ``gpus`` has its own, by ``CUDA_VISIBLE_DEVICES``; one that asks for
    none sees what the machine shows it.
    """

    def __init__(
        self,
        notify: NotifyServer,
        *,
        clock: Clock | None = None,
        walls: Walls | None = None,
        gpus: Sequence[str] = (),
    ) -> None:
        self._notify = notify
        self._walls = walls
        self._gpus = GpuShares(gpus)
        self._clock = clock or SystemClock()
        self._tasks = TaskOwner()
        self._spawner = Spawner()
        self._spawner.prepare()
        self._followed: dict[int, ProcessHandle] = {}

    def unseen(self, folder: Path) -> str:  # noqa: ARG002 - of every launcher
        """Nothing: processes have the files that we have."""
        return ""

    async def start(self, request: LaunchRequest) -> ProcessHandle:
        """Start the attempt. Returns when the run's program is loaded or has failed to.

        Raises NotWarmError, WallsError.
        """
        attempt = AttemptDir(request.folder)
        attempt.create()
        if request.gpus:
            try:
                ids = self._gpus.take(str(attempt.path), request.gpus)
            except NoGpuError as error:
                return self._never_ran(request, attempt, str(error))
            # Set between a warm start and the script: frameworks read it with their first use.
            seen = {"CUDA_VISIBLE_DEVICES": ",".join(ids)}
            request = replace(request, gpu_ids=ids, env=request.env | seen)
        try:
            return await self._begin(request, attempt)
        except BaseException:
            if request.gpus and not locked(attempt.path):  # else it is adopted
                self._gpus.give_back(str(attempt.path))
            raise

    async def _begin(self, request: LaunchRequest, attempt: AttemptDir) -> ProcessHandle:
        """Start it within its walls, warm or cold."""
        if self._walls is not None:
            request = await self._walls.around(request)
        if request.must_be_warm and request.warm is None:
            raise WallsError(request.cold_reason or "it has no warm process")
        if request.warm is not None:
            handle = await self._start_warm(request, attempt)
            if handle is not None:
                return handle
            if request.must_be_warm:
                if self._walls is not None:
                    self._walls.clear(request.cgroups)
                raise NotWarmError
            request = replace(request, warm=None, cold_reason=NOT_STARTED)
        return await self._start(request, attempt, START_TIMEOUT_S)

    async def _start_warm(
        self, request: LaunchRequest, attempt: AttemptDir
    ) -> ProcessHandle | None:
        """Start in a warm process; None if it did not begin and nothing of it is left."""
        try:
            return await self._start(request, attempt, WARM_TIMEOUT_S)
        except (OSError, ValueError) as error:  # a time-out is an OSError
            log.warning("warm start failed", action="warm_start_failed", error=str(error))
        with suppress(TimeoutError):
            await _settled(attempt, WARM_TIMEOUT_S)
        with holding(attempt.path) as ours:
            if ours and not started(attempt):
                await self._kill(attempt)
                attempt.forget_start()
                return None
        return await self.adopt(attempt)  # the answer was lost, not the supervisor

    async def _start(
        self, request: LaunchRequest, attempt: AttemptDir, timeout_s: float
    ) -> ProcessHandle:
        attempt.write_launch(request.launch_file(attempt, self._notify.path))
        activity = self._notify.event(key(request.run_id, request.attempt))
        spawned = self._spawn(request, attempt.path)
        pid, pidfd = spawned.pid, spawned.pidfd
        try:
            await _await_start(attempt, activity, pidfd, timeout_s)
        except BaseException as error:
            try:
                if request.warm is not None and isinstance(error, TimeoutError):
                    await _killed(pidfd)  # it is tried again, cold
            finally:
                os.close(pidfd)  # cancelled or too slow; whatever starts can still be adopted
            raise
        shim = attempt.read_shim()
        if attempt.read_exit() or (shim is not None and shim.pid == pid):
            return self._follow(attempt, activity, pidfd)
        # Ours did not run it: another one holds the attempt (a start an earlier executor began),
        # its warm process did not begin the run, or it died before it could do anything.
        os.close(pidfd)
        if why := attempt.not_begun():
            raise ConnectionResetError(why)
        handle = await self.adopt(attempt)
        return handle or await self._lost(attempt, activity)

    def _spawn(self, request: LaunchRequest, folder: Path) -> Spawned:
        """Start the attempt's supervisor with what it needs of ours. Raises OSError."""
        view = () if request.view is None else request.view.descriptors
        if request.warm is None:
            return self._spawner.spawn(folder, view)
        if not request.warm.walled:
            return request.warm.spawn(folder, view)
        with request.warm.lend() as place:
            return self._spawner.spawn(folder, (*view, *place))

    async def adopt(self, attempt: AttemptDir) -> ProcessHandle | None:
        """Take over what an earlier executor started; None if nothing ever ran there.

        A supervisor that died without an exit record gets one here, after its processes are gone.
        """
        attempt = AttemptDir(attempt.path)  # what it says now, whatever was read of it before
        launch = attempt.read_launch()
        if launch is None:
            return None
        self._gpus.hold(str(attempt.path), launch.get("gpu_ids") or ())
        activity = self._notify.event(str(launch["notify_key"]))
        if not started(attempt):
            await _settled(attempt, START_TIMEOUT_S)
            if not started(attempt):
                self._gpus.give_back(str(attempt.path))
                return None
        shim = attempt.read_shim()
        pidfd = None
        if shim is not None and shim.boot_id == processes.boot_id():
            pidfd = processes.open_process(shim.pid, shim.start_ticks)
        if shim is not None and pidfd is not None:
            return self._follow(attempt, activity, pidfd)
        return await self._lost(attempt, activity)

    async def cleanup(self, attempt: AttemptDir) -> None:
        """Remove the attempt's processes and its folder."""
        if not attempt.path.exists():
            return
        if locked(attempt.path):
            raise AttemptRunningError(f"attempt folder {attempt.path.name}: stop the attempt first")
        if attempt.read_exit() is None:  # else its supervisor, or we for it, ended everything
            await self._kill(attempt)
        self._gpus.give_back(str(attempt.path))
        launch = attempt.read_launch()
        if not remove_small(os.fspath(attempt.path)):
            await asyncio.to_thread(remove, attempt.path)
        if launch is not None and self._walls is not None:
            self._walls.clear(launch.get("cgroups") or ())
        if launch is not None:
            self._notify.forget(str(launch["notify_key"]))

    async def close(self) -> None:
        """Let go of everything; runs go on."""
        for pidfd, handle in self._followed.items():
            asyncio.get_running_loop().remove_reader(pidfd)
            handle.release()
        self._followed.clear()
        self._spawner.close()
        await self._tasks.close()

    def _follow(self, attempt: AttemptDir, activity: asyncio.Event, pidfd: int) -> ProcessHandle:
        """Return a handle that ends when the supervisor does."""
        handle = ProcessHandle(attempt, activity, pidfd)
        self._followed[pidfd] = handle
        asyncio.get_running_loop().add_reader(pidfd, self._gone, handle, pidfd)
        return handle

    def _gone(self, handle: ProcessHandle, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        del self._followed[pidfd]
        handle.release()
        record = handle.attempt.read_exit()
        if record is not None:
            self._finish(handle, record)
        else:
            self._tasks.spawn(self._conclude(handle), name=f"conclude {handle.attempt.path.name}")

    def _never_ran(self, request: LaunchRequest, attempt: AttemptDir, why: str) -> ProcessHandle:
        attempt.write_launch(request.launch_file(attempt, self._notify.path))
        activity = self._notify.event(key(request.run_id, request.attempt))
        handle = ProcessHandle(attempt, activity, None)
        record = obituary(attempt, self._clock.now().timestamp(), why)
        record = record.model_copy(update={"reason": "launch-failed"})
        attempt.write_exit(record)
        handle.finish(record)
        return handle

    async def _lost(self, attempt: AttemptDir, activity: asyncio.Event) -> ProcessHandle:
        handle = ProcessHandle(attempt, activity, None)
        await self._conclude(handle)
        return handle

    def _finish(self, handle: ProcessHandle, record: ExitRecord) -> None:
        self._gpus.give_back(str(handle.attempt.path))
        handle.finish(record)

    async def _conclude(self, handle: ProcessHandle) -> None:
        """Publish the exit record, writing it first if the supervisor could not."""
        record = handle.attempt.read_exit()
        if record is None:
            await self._kill(handle.attempt)
            record = await asyncio.to_thread(
                obituary, handle.attempt, self._clock.now().timestamp()
            )
            handle.attempt.write_exit(record)
        self._finish(handle, record)

    async def _kill(self, attempt: AttemptDir) -> None:
        """End whatever still carries the attempt's environment or belongs to its session."""
        shim = attempt.read_shim()
        same_boot = shim is not None and shim.boot_id == processes.boot_id()
        session, ticks = (
            (shim.child_pid, shim.child_start_ticks) if shim and same_boot else (None, 0)
        )
        marker = f"STELLWERK_RUN_SOCKET={attempt.socket}"
        await asyncio.to_thread(processes.kill_marked, marker, session, ticks)


def obituary(attempt: AttemptDir, now: float, message: str | None = None) -> ExitRecord:
    """What is known about a run whose supervisor left no exit record."""
    launch, shim = attempt.read_launch() or {}, attempt.read_shim()
    if message is None:
        message = "the run could not be started: its supervisor ended at once"
        if shim is not None:
            message = "the run's supervisor was killed, so the run was ended"
            if shim.boot_id != processes.boot_id():
                message = "this machine restarted while the run was going"
    return ExitRecord(
        run_id=str(launch.get("run_id", "")),
        attempt=int(launch.get("attempt", 0)),
        exit_code=None,
        signal=None,
        oom=False,
        reason="shim-lost",
        message=message,
        started_at=shim.started_at if shim else now,
        ended_at=now,
        duration_s=max(0.0, now - shim.started_at) if shim else 0.0,
        cpu_s=0.0,
        peak_rss_bytes=0,
        log_dropped_bytes=0,
        **attempt.log_facts(),
    )


def started(attempt: AttemptDir) -> bool:
    """Whether its program has been loaded, or has failed to."""
    return attempt.read_shim() is not None or attempt.read_exit() is not None


async def _await_start(
    attempt: AttemptDir,
    activity: asyncio.Event,
    pidfd: int,
    timeout_s: float,
) -> None:
    """Wait for the supervisor's first word, or for its end.

    Raises TimeoutError: the machine is too loaded to start a process.
    """
    loop = asyncio.get_running_loop()
    loop.add_reader(pidfd, activity.set)
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                activity.clear()
                if started(attempt) or processes.has_ended(pidfd):
                    break
                await activity.wait()
    finally:
        loop.remove_reader(pidfd)


async def _settled(attempt: AttemptDir, timeout_s: float) -> None:
    """Wait until a supervisor that has the attempt has started it or is gone. Raises TimeoutError.

    One that was killed may still have a fork that is about to end with it.
    """
    async with asyncio.timeout(timeout_s):
        while locked(attempt.path) and not started(attempt):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOCK_S)


async def _killed(pidfd: int) -> None:
    """End a supervisor and wait for that: until then it holds its attempt."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    gone, loop = asyncio.Event(), asyncio.get_running_loop()
    loop.add_reader(pidfd, gone.set)
    try:
        await gone.wait()
    finally:
        loop.remove_reader(pidfd)


def locked(folder: Path) -> bool:
    """Whether a supervisor, even one that is just starting, holds the attempt."""
    with holding(folder) as ours:
        return not ours


@contextmanager
def holding(folder: Path) -> Iterator[bool]:
    """Hold the attempt as a supervisor would, so that none begins; False: one has it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        ours = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            ours = False
        yield ours
    finally:
        os.close(descriptor)
