"""Starts runs in containers, and finds them again after a restart of this service or the engine.

The supervisor (`stellwerk_shim`) runs inside, as the container's only process next to the engine's
init, and does there what it does for plain processes: files of the attempt folder, the run's
socket, the lease by its own clock, exact exit codes. The engine adds the walls and says what ended.
"""

import asyncio
import os
import shutil
from collections.abc import Awaitable
from pathlib import Path

import structlog

import stellwerk_shim
from stellwerk_gpu_executor import rclone, resources
from stellwerk_gpu_executor.attempt_dir import AttemptDir, ExitRecord
from stellwerk_gpu_executor.container import Profile, config, name_of
from stellwerk_gpu_executor.engine import Engine, EngineError, State
from stellwerk_gpu_executor.gpu_shares import GpuShares, NoGpuError
from stellwerk_gpu_executor.launcher import START_TIMEOUT_S, locked, obituary, started
from stellwerk_gpu_executor.launching import AttemptRunningError, LaunchRequest, key
from stellwerk_gpu_executor.notify import NotifyServer
from stellwerk_gpu_executor.removal import remove
from stellwerk_gpu_executor.settings import Settings
from stellwerk_kit.clock import Clock, SystemClock
from stellwerk_kit.registry_logins import RegistryLogins
from stellwerk_kit.tasks import TaskOwner

RUN_USER = 10_900
"""Who runs are where this service is root; else they are who it is."""

AGAIN_S = 5.0
"""Between two tries to tell an end that engine or disk did not allow to be told."""

STOPPED = "the run's container was ended from outside, by somebody or with the Docker engine"

log = structlog.get_logger()


class ContainerHandle:
    """An attempt in a container; see launching.Handle."""

    def __init__(
        self, attempt: AttemptDir, activity: asyncio.Event, name: str, launcher: "DockerLauncher"
    ) -> None:
        self.attempt, self.activity, self.name = attempt, activity, name
        self._launcher = launcher
        self._lease = attempt.read_lease()
        self._ended: asyncio.Future[ExitRecord] = asyncio.get_running_loop().create_future()

    async def wait(self) -> ExitRecord:
        """Wait for the end."""
        return await asyncio.shield(self._ended)

    def alive(self) -> bool:
        """Whether the attempt has not ended yet."""
        return not self._ended.done()

    def exit_record(self) -> ExitRecord | None:
        """Return how it ended, None while it has not."""
        return self._ended.result() if self._ended.done() else None

    def stop(self, reason: str, grace_s: float | None = None, message: str | None = None) -> None:
        """Ask for the end."""
        if self.alive():
            self.attempt.write_stop(reason, grace_s, message)
            self._launcher.signal(self.name, "SIGTERM")

    def renew(self, deadline_mono: float | None) -> None:
        """Let the run live until that monotonic time."""
        before, self._lease = self._lease, deadline_mono
        if not self.alive():
            return
        self.attempt.write_lease(deadline_mono)
        # The supervisor looks again when the deadline it knows passes; an earlier one it is told.
        if deadline_mono is not None and (before is None or deadline_mono < before):
            self._launcher.signal(self.name, "SIGHUP")

    def finish(self, record: ExitRecord) -> None:
        """Publish the end."""
        if self.alive():
            self._ended.set_result(record)
            self.activity.set()


class DockerLauncher:
    """Launcher for containers; see launching.Launcher."""

    def __init__(
        self,
        notify: NotifyServer,
        engine: Engine,
        profile: Profile,
        *,
        gpus: GpuShares | None = None,
        clock: Clock | None = None,
    ) -> None:
        """``gpus``: of this node, by container; those of an earlier launcher's are held."""
        self._notify, self._engine, self._profile = notify, engine, profile
        self._clock = clock or SystemClock()
        self._tasks = TaskOwner()
        self._owner = profile.user if os.geteuid() == 0 else None
        self._followed: dict[str, ContainerHandle] = {}
        self._concluding: set[str] = set()
        self._starting: set[str] = set()
        self._gpus = gpus or GpuShares()
        """By container, until it has ended for certain."""
        self._missed = 0
        engine.watch(self._gone, self._look_again)

    def unseen(self, folder: Path) -> str:
        """Why containers would not see what we mount below ``folder``, or ''."""
        return rclone.unseen(folder, elsewhere=bool(self._profile.host))

    async def start(self, request: LaunchRequest) -> ContainerHandle:
        """Start the attempt. Returns when the run's program is loaded or has failed to."""
        attempt = self._own(AttemptDir(request.folder))
        attempt.create()
        attempt.write_lease(request.lease)
        attempt.write_launch(request.launch_file(attempt, self._notify.path))
        await asyncio.to_thread(self._give, request)
        name = name_of(request.run_id, request.attempt)
        handle = self._follow(attempt, key(request.run_id, request.attempt), name)
        self._starting.add(name)
        missed = self._missed
        try:
            gpus = self._gpus.take(name, request.gpus)
            await self._engine.start(name, config(request, self._profile, gpus))
        except (EngineError, NoGpuError) as error:
            self._never_ran(handle, str(error))
            return handle
        finally:
            self._starting.discard(name)
        if missed != self._missed:  # the events began anew meanwhile: its end may not be told
            self._look_again()
        await self._await_start(handle)
        return handle

    async def adopt(self, attempt: AttemptDir) -> ContainerHandle | None:
        """Take over what an earlier executor started; None if nothing ever ran there."""
        launch = attempt.read_launch()
        if launch is None:
            return None
        name = name_of(str(launch["run_id"]), int(launch["attempt"]))
        state = await self._engine.state(name)
        if (state is None and not started(attempt)) or (state is not None and state.created_only):
            await self._remove(name)
            return None
        handle = self._follow(self._own(attempt), str(launch["notify_key"]), name)
        if state is None or not state.running:
            self._concluding.add(name)
            await self._conclude(handle)
        else:
            await self._await_start(handle)
        return handle

    async def cleanup(self, attempt: AttemptDir) -> None:
        """Remove the attempt's container and its folder."""
        if not attempt.path.exists():
            return
        if locked(attempt.path):
            raise AttemptRunningError(f"attempt folder {attempt.path.name}: stop the attempt first")
        launch = attempt.read_launch()
        if launch is not None:
            await self._remove(name_of(str(launch["run_id"]), int(launch["attempt"])))
            self._notify.forget(str(launch["notify_key"]))
        await asyncio.to_thread(remove, attempt.path)

    async def sweep(self, folders: Path) -> None:
        """Remove containers of ours whose attempt folder is gone."""
        for name in await self._engine.names():
            if not (folders / name.removeprefix("stellwerk-")).exists():
                log.warning("orphan removed", action="container_orphan", container=name)
                await self._remove(name)

    async def _remove(self, name: str) -> None:
        await self._engine.remove(name)
        self._gpus.give_back(name)
        self._followed.pop(name, None)

    async def close(self) -> None:
        """Let go of everything; runs go on."""
        self._followed.clear()
        await self._tasks.close()
        self._engine.close()

    def signal(self, name: str, number: str) -> None:
        """Send a signal in the background; who is stopped may have ended meanwhile."""
        self._background(self._engine.signal(name, number), f"{number} {name}")

    def _background(self, work: Awaitable[None], name: str) -> None:
        async def quiet() -> None:
            try:
                await work
            except EngineError as error:
                log.error("engine", action="engine_failed", what=name, error=str(error))

        self._tasks.spawn(quiet(), name)

    def _own(self, attempt: AttemptDir) -> AttemptDir:
        return AttemptDir(attempt.path, self._owner)

    def _give(self, request: LaunchRequest) -> None:
        """Make the run the owner of its folder, which we made and it has not seen yet.

        Hard links into the cache stay ours.
        """
        if self._owner is None:
            return
        for parent, folders, files in os.walk(request.folder):
            if Path(parent) in request.readable:
                folders.clear()
                continue
            os.lchown(parent, self._owner, self._owner)
            for name in files:
                path = Path(parent, name)
                if path.lstat().st_nlink == 1:
                    os.lchown(path, self._owner, self._owner)

    def _follow(self, attempt: AttemptDir, wake: str, name: str) -> ContainerHandle:
        handle = ContainerHandle(attempt, self._notify.event(wake), name, self)
        self._followed[name] = handle
        return handle

    async def _await_start(self, handle: ContainerHandle) -> None:
        """Wait for the supervisor's first word or the container's end."""
        async with asyncio.timeout(START_TIMEOUT_S):
            while handle.alive() and not started(handle.attempt):
                handle.activity.clear()
                if handle.alive() and not started(handle.attempt):
                    await handle.activity.wait()

    def _never_ran(self, handle: ContainerHandle, message: str) -> None:
        now = self._clock.now().timestamp()
        record = obituary(handle.attempt, now, message).model_copy(
            update={"reason": "launch-failed"}
        )
        handle.attempt.write_exit(record)
        self._forget(handle, record)
        # The engine may have started it, and nobody wants it any more; its GPUs go with it.
        self._background(self._put_away(handle.name), f"put away {handle.name}")

    async def _put_away(self, name: str) -> None:
        """Remove a container as soon as the engine allows it."""
        while True:
            try:
                await self._remove(name)
            except EngineError as error:
                log.error(
                    "not removed yet", action="remove_failed", container=name, error=str(error)
                )
                await asyncio.sleep(AGAIN_S)
            else:
                return

    def _gone(self, name: str) -> None:
        """The engine says that a container has ended."""
        handle = self._followed.get(name)
        if handle is not None and name not in self._concluding:
            self._concluding.add(name)
            self._background(self._conclude(handle), f"conclude {name}")

    def _look_again(self) -> None:
        """The engine's events were away: see what has ended meanwhile."""
        self._missed += 1

        async def look() -> None:
            for name in self._followed.keys() - self._starting:
                state = await self._engine.state(name)
                if state is None or not (state.running or state.created_only):
                    self._gone(name)

        self._background(look(), "look again")

    async def _conclude(self, handle: ContainerHandle) -> None:
        """Publish the end, as soon as engine and disk allow it."""
        try:
            while self._followed.get(handle.name) is handle:
                try:
                    await self._publish_end(handle)
                except (EngineError, OSError) as error:
                    where = {"container": handle.name, "error": str(error)}
                    log.error("end not told yet", action="conclude_failed", **where)
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._concluding.discard(handle.name)

    async def _publish_end(self, handle: ContainerHandle) -> None:
        """Publish the exit record: the supervisor's, or ours if it could not write one."""
        attempt, state = handle.attempt, await self._engine.state(handle.name)
        record = attempt.read_exit()
        if record is None:
            message = _last_words(attempt, state)
            record = obituary(attempt, self._clock.now().timestamp(), message)
        elif record.reason == "canceled" and attempt.read_stop() is None:
            # SIGTERM, but not from us: an engine that restarts ends its containers that way.
            record = record.model_copy(update={"reason": "shim-lost", "message": STOPPED})
        record = _with_memory(record, state)
        if record != attempt.read_exit():
            attempt.write_exit(record)
        self._gpus.give_back(handle.name)
        self._forget(handle, record)

    def _forget(self, handle: ContainerHandle, record: ExitRecord) -> None:
        self._followed.pop(handle.name, None)
        handle.finish(record)


async def open_launcher(settings: Settings, notify: NotifyServer, clock: Clock) -> DockerLauncher:
    """A launcher on the engine that ``settings`` name; installs the supervisor for containers."""
    folder = settings.executor_dir.absolute() / "shim"
    shutil.rmtree(folder, ignore_errors=True)
    source = Path(stellwerk_shim.__file__).parent
    skipped = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, folder / "stellwerk_shim", ignore=skipped)
    logins = RegistryLogins.read(settings.registry_credentials, settings.registry)
    engine = Engine(settings.executor_id, logins)
    profile = Profile(
        executor_id=settings.executor_id,
        image=settings.run_image,
        network=settings.run_network,
        shm_bytes=settings.run_shm_bytes,
        user=os.geteuid() or RUN_USER,
        shim=folder,
        notify=notify.path.parent,
        host=await engine.own_mounts(),
    )
    gpus = GpuShares(resources.gpu_ids(), await engine.gpus())
    return DockerLauncher(notify, engine, profile, gpus=gpus, clock=clock)


def _last_words(attempt: AttemptDir, state: State | None) -> str:
    if state is None:
        return "the run's container was removed by somebody else, so the run was ended"
    if state.error:
        return f"the run's container could not be started: {state.error}"
    if attempt.read_shim() is None:
        return f"the run's container ended at once, with status {state.exit_code}"
    return STOPPED


def _with_memory(record: ExitRecord, state: State | None) -> ExitRecord:
    """Say that memory ran out inside the container, also when only a child was killed for it."""
    if state is None or not state.oom_killed or record.oom:
        return record
    word = "a process of the run was ended because the container reached its memory limit"
    message = "; ".join(part for part in (record.message, word) if part)
    update: dict[str, object] = {"oom": True, "message": message}
    if record.reason in {"signaled", "shim-lost"}:
        update["reason"] = "oom"
    return record.model_copy(update=update)
