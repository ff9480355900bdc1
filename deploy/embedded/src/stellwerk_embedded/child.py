"""One supervised process: started, watched, started again, ended.

It dies with the supervisor, even when that is killed. Its process group goes with it; what made
a session of its own (the supervisors of runs do) stays.
"""

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from stellwerk_embedded.logfile import open_log
from stellwerk_embedded.probes import problem
from stellwerk_embedded.processes import ProcessSpec
from stellwerk_kit.clock import SystemClock

BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0)
"""Pauses before a new start: after one failure in a row, after two, and so on."""
CRASH_LIMIT = len(BACKOFF_S)
"""More failures in a row are a crash loop: reported, and tried again seldom."""
CRASH_LOOP_S = 30.0
STEADY_S = 2.0
"""Ready for so long, and what went before is forgotten."""
PROBE_S = 0.05
PR_SET_PDEATHSIG = 1
CLOCK = SystemClock()
_libc = ctypes.CDLL(None)


class Child:
    """One process under supervision. ``changed`` is called whenever its state does."""

    def __init__(self, spec: ProcessSpec, log: Path, changed: Callable[[], None]) -> None:
        self.spec, self._log, self._changed = spec, log, changed
        self.state, self.message, self.restarts = "waiting", "", 0
        self.ready, self.stopped = asyncio.Event(), asyncio.Event()
        self.crash_looping = False
        self._process: asyncio.subprocess.Process | None = None
        self._failures = 0

    async def keep(self) -> None:
        """Keep it running until cancelled; a job is run until it has succeeded once."""
        while True:
            try:
                if await self._once():
                    return
            except OSError as error:
                self._failed(f"cannot be started: {error.strerror or error}")
            delay = CRASH_LOOP_S if self.crash_looping else BACKOFF_S[self._failures - 1]
            await asyncio.sleep(delay)
            self.restarts += 1

    async def stop(self) -> None:
        """SIGTERM; SIGKILL to all of its group after ``spec.stop_s`` seconds."""
        process = self._process
        if process is not None and process.returncode is None:
            self._set("stopping")
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), self.spec.stop_s)
            except TimeoutError:
                self.message = f"did not end within {self.spec.stop_s:g} s and was killed"
            await self._end_group(process)
        self._set("stopped", self.message)
        self.stopped.set()

    def describe(self) -> dict[str, Any]:
        """State as ``supervisor.json`` has it."""
        alive = self._process is not None and self._process.returncode is None
        return {
            "pid": self._process.pid if alive and self._process else None,
            "port": self.spec.port or None,
            "state": self.state,
            "restarts": self.restarts,
            "message": self.message,
        }

    async def _once(self) -> bool:
        """One life; True when it was a job and is done."""
        self._process = process = await self._start()
        self._set("starting", self.message)
        probing = asyncio.ensure_future(self._probe())
        try:
            status = await process.wait()
        finally:
            probing.cancel()
        was_ready_s = CLOCK.monotonic() - probing.result() if _done(probing) else 0.0
        await self._end_group(process)
        self.ready.clear()
        if self.spec.probe is None and status == 0:
            self.ready.set()
            self._set("done")
            return True
        if was_ready_s >= STEADY_S:
            self._failures = 0
        self._failed(_ended(status))
        return False

    async def _start(self) -> asyncio.subprocess.Process:
        with open_log(self._log) as log:
            return await asyncio.create_subprocess_exec(
                *self.spec.command,
                env=self.spec.environment,
                cwd=self.spec.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with(os.getpid()),
            )

    async def _probe(self) -> float:
        """Wait until it is ready; returns when that was."""
        if self.spec.probe is None:
            await asyncio.Event().wait()
        else:
            while (reason := await problem(self.spec.probe)) is not None:
                self.message = reason
                await asyncio.sleep(PROBE_S)
        self.ready.set()
        self._set("ready")
        return CLOCK.monotonic()

    async def _end_group(self, process: asyncio.subprocess.Process) -> None:
        """No helper of a process that is gone works on beside its successor."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()

    def _failed(self, message: str) -> None:
        self._failures += 1
        self.crash_looping = self._failures > CRASH_LIMIT
        if self.crash_looping:
            self._set("failing", f"{message}, {self._failures} times in a row")
        else:
            self._set("restarting", message)

    def _set(self, state: str, message: str = "") -> None:
        self.state, self.message = state, message
        self._changed()


def _done(task: asyncio.Future[float]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None


def _ended(status: int) -> str:
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _die_with(parent: int) -> Callable[[], None]:
    """For a new process, before it becomes the program: no life without us, no core dumps."""

    def prepare() -> None:
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if os.getppid() != parent:  # it died before the line above
            os._exit(1)

    return prepare
