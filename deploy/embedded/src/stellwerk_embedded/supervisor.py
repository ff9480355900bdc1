"""Starts the processes, watches them, starts them again, and ends them in order.

Runs detached as ``python -m stellwerk_embedded.supervisor HOME BASE_PORT READY_FD``. Nothing it
started outlives it, except runs: their shims are detached on purpose and are adopted by the next
executor.
"""

import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import IO, Any

from stellwerk_embedded import credentials, ports, processes, s3_config
from stellwerk_embedded.layout import Layout, write_private
from stellwerk_embedded.probes import is_ready
from stellwerk_embedded.processes import ProcessSpec

READY_LIMIT_S = 60.0
BACKOFF_S = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
STEADY_S = 5.0
"""A process that ran this long is no crash loop: its next start waits for nothing."""
LOG_LIMIT = 20 * 1024 * 1024
STOP_LIMIT_S = 20.0
PR_SET_PDEATHSIG = 1


class Watched:
    """One process under supervision."""

    def __init__(self, spec: ProcessSpec, log: Path) -> None:
        self.spec, self._log = spec, log
        self.process: asyncio.subprocess.Process | None = None
        self.state, self.restarts, self.message = "starting", 0, ""
        self.ready = asyncio.Event()

    async def run(self, changed: asyncio.Event) -> None:
        """Keep it running until cancelled."""
        failures = 0
        while True:
            started = time.monotonic()
            self.process = await self._start()
            self.state = "starting"
            changed.set()
            probing = asyncio.ensure_future(self._probe(changed))
            status = await self.process.wait()
            probing.cancel()
            self.ready.clear()
            failures = 0 if time.monotonic() - started > STEADY_S else failures + 1
            self.restarts += 1
            self.state, self.message = "restarting", f"ended with status {status}"
            changed.set()
            await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL."""
        process = self.process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_LIMIT_S)
            except TimeoutError:
                process.kill()
                await process.wait()

    def describe(self) -> dict[str, Any]:
        """State as ``supervisor.json`` has it."""
        alive = self.process is not None and self.process.returncode is None
        return {
            "pid": self.process.pid if self.process and alive else None,
            "port": self.spec.port,
            "state": self.state,
            "restarts": self.restarts,
            "message": self.message,
        }

    async def _start(self) -> asyncio.subprocess.Process:
        self.spec.folder.mkdir(parents=True, exist_ok=True)
        with _open_log(self._log) as log:
            return await asyncio.create_subprocess_exec(
                *self.spec.command,
                env=self.spec.environment,
                cwd=self.spec.folder,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )

    async def _probe(self, changed: asyncio.Event) -> None:
        while not await is_ready(self.spec.probe):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.05)
        self.state, self.message = "ready", ""
        self.ready.set()
        changed.set()


class Supervisor:
    """All processes of one stack."""

    def __init__(self, layout: Layout, port_map: dict[str, int]) -> None:
        self._layout, self._ports = layout, port_map
        self._watched = [
            Watched(spec, layout.logs / f"{spec.name}.log")
            for spec in processes.specs(layout, port_map)
        ]
        self._changed = asyncio.Event()
        self._stopping = asyncio.Event()

    async def run(self, ready: IO[str]) -> int:
        """Until SIGTERM; tells ``ready`` in one JSON line how the start went."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        tasks = [asyncio.ensure_future(watched.run(self._changed)) for watched in self._watched]
        tasks.append(asyncio.ensure_future(self._write_states()))
        try:
            failure = await self._await_ready()
            _tell(ready, failure)
            if failure is None:
                await self._stopping.wait()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._stop_all()
        return 0 if failure is None else 1

    async def _await_ready(self) -> str | None:
        """None when all is ready, else what is not."""
        topology = asyncio.ensure_future(self._apply_topology())
        everything = asyncio.gather(topology, *(watched.ready.wait() for watched in self._watched))
        stop = asyncio.ensure_future(self._stopping.wait())
        waits: set[asyncio.Future[Any]] = {everything, stop}
        await asyncio.wait(waits, timeout=READY_LIMIT_S, return_when="FIRST_COMPLETED")
        stop.cancel()
        if everything.done() and not everything.cancelled() and everything.exception() is None:
            return None
        error = everything.exception() if everything.done() else None
        everything.cancel()
        late = [watched for watched in self._watched if not watched.ready.is_set()]
        names = ", ".join(f"{w.spec.name} ({w.message or w.state})" for w in late)
        tails = "\n".join(_tail(self._layout.logs / f"{w.spec.name}.log") for w in late[:3])
        return f"not ready: {names}{f'; {error}' if error else ''}\n{tails}"

    async def _apply_topology(self) -> None:
        await self._watched[0].ready.wait()
        spec = processes.topology_command(self._layout, self._ports)
        path = self._layout.logs / "topology.log"
        with _open_log(path) as log:
            done = await asyncio.create_subprocess_exec(
                *spec.command,
                env=spec.environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=_die_with_parent,
            )
        if await done.wait() != 0:
            raise RuntimeError(f"streams cannot be made:\n{_tail(path)}")

    async def _write_states(self) -> None:
        while True:
            self._write_state()
            await self._changed.wait()
            self._changed.clear()

    def _write_state(self) -> None:
        content = {
            "pid": os.getpid(),
            "ports": self._ports,
            "processes": {watched.spec.name: watched.describe() for watched in self._watched},
        }
        write_private(self._layout.state_file, json.dumps(content, indent=1))

    async def _stop_all(self) -> None:
        """Services first, together; then the servers they need."""
        services, servers = self._watched[2:], self._watched[:2]
        await asyncio.gather(*(watched.stop() for watched in services))
        await asyncio.gather(*(watched.stop() for watched in servers))
        self._layout.state_file.unlink(missing_ok=True)


def _die_with_parent() -> None:
    """Children end when the supervisor is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _open_log(path: Path) -> IO[bytes]:
    """Append; a log of more than 20 MiB is set aside first."""
    if path.exists() and path.stat().st_size > LOG_LIMIT:
        path.replace(path.with_suffix(".log.1"))
    return path.open("ab")


def _tail(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()[-5:]
    except OSError:
        return ""
    return "\n".join(f"  {path.name}: {line[:300]}" for line in lines)


def _tell(ready: IO[str], failure: str | None) -> None:
    with contextlib.suppress(OSError), ready:
        ready.write(json.dumps({"failure": failure}) + "\n")


def main(home: str, base_port: str, ready_fd: str) -> int:
    """Prepare the folder and run; exits 5 when another supervisor holds it."""
    layout = Layout(Path(home))
    with os.fdopen(int(ready_fd), "w") as ready, layout.lock_file.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            _tell(ready, "another supervisor holds this folder")
            return 5
        try:
            port_map = ports.assign(int(base_port))
            credentials.ensure(layout)
            s3_config.write(layout)
            credentials.write_client_file(layout, port_map)
            supervisor = Supervisor(layout, port_map)
        except (ports.PortInUseError, FileNotFoundError) as error:
            _tell(ready, str(error))
            return 1
        return asyncio.run(supervisor.run(ready))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
