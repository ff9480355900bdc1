"""Starts the processes in their order, watches them, and ends them the other way round.

Runs detached as ``python -m stellwerk_embedded.supervisor HOME LOCK_FD REPORT_FD`` on a folder
that ``stellwerk up`` has prepared. Nothing it started outlives it, except runs: their supervisors
are detached on purpose and are adopted by the next executor.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from stellwerk_embedded import ports, processes, state
from stellwerk_embedded.child import Child
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.logfile import rotate, tail
from stellwerk_embedded.processes import ProcessSpec
from stellwerk_kit.clock import SystemClock

READY_LIMIT_S = 90.0
ROTATE_EVERY_S = 10.0
CLOCK = SystemClock()


class Report:
    """JSON lines to the command that waits for the start; it may have left already."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream: IO[str] | None = stream

    def say(self, **content: Any) -> None:
        """One line."""
        if self._stream is None:
            return
        try:
            self._stream.write(json.dumps(content) + "\n")
            self._stream.flush()
        except OSError:
            self.close()

    def close(self) -> None:
        """No more lines."""
        if self._stream is not None:
            stream, self._stream = self._stream, None
            try:
                stream.close()
            except OSError:
                return


class Supervisor:
    """All processes of one stack."""

    def __init__(
        self, layout: Layout, port_map: dict[str, int], specs: Iterable[ProcessSpec]
    ) -> None:
        self._layout, self._ports = layout, port_map
        self._changes, self._moved = asyncio.Event(), asyncio.Event()
        self._children = {
            spec.name: Child(spec, layout.log(spec.name), self._changed) for spec in specs
        }
        self._stopping = asyncio.Event()

    async def run(self, report: Report) -> int:
        """Until SIGTERM; tells ``report`` how the start goes. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            loop.add_signal_handler(number, self._stop)
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write_states())
            rotator = group.create_task(self._rotate_logs())
            keepers = [group.create_task(self._keep(child)) for child in self._children.values()]
            failure = await self._await_ready(report)
            report.say(failure=failure)
            report.close()
            if failure is None:
                await self._stopping.wait()
            for task in keepers:
                task.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)
            await self._stop_all()
            writer.cancel()
            rotator.cancel()
        self._layout.state_file.unlink(missing_ok=True)
        return 0 if failure is None else 1

    def _changed(self) -> None:
        """Some child's state did: for the file of states, and for who waits for the start."""
        self._changes.set()
        self._moved.set()

    def _stop(self) -> None:
        self._stopping.set()
        self._moved.set()

    async def _keep(self, child: Child) -> None:
        for name in child.spec.after:
            await self._children[name].ready.wait()
        await child.keep()

    async def _await_ready(self, report: Report) -> str | None:
        """None when all is ready, else why it is not. Tells ``report`` of each that is."""
        started, told = CLOCK.monotonic(), set[str]()
        try:
            async with asyncio.timeout(READY_LIMIT_S):
                while len(told) < len(self._children):
                    self._moved.clear()
                    for name, child in self._children.items():
                        if child.ready.is_set() and name not in told:
                            told.add(name)
                            report.say(ready=name, seconds=round(CLOCK.monotonic() - started, 1))
                    if self._stopping.is_set():
                        return "it was stopped before it was ready"
                    if any(child.crash_looping for child in self._children.values()):
                        return self._why_not_ready()
                    if len(told) < len(self._children):
                        await self._moved.wait()
        except TimeoutError:
            return self._why_not_ready()
        return None

    def _why_not_ready(self) -> str:
        """What is to blame: what crashes, else what started and is not ready."""
        children = list(self._children.values())
        blamed = [child for child in children if child.crash_looping]
        blamed = blamed or [
            child for child in children if not child.ready.is_set() and child.state != "waiting"
        ]
        lines = []
        for child in blamed:
            log = self._layout.log(child.spec.name)
            lines.append(f"{child.spec.name}: {child.message or child.state} (log: {log})")
            lines += [f"    {line}" for line in tail(log)]
        return "\n".join(lines)

    async def _stop_all(self) -> None:
        """Each when all that need it have ended."""

        async def stop(child: Child) -> None:
            for other in self._children.values():
                if child.spec.name in other.spec.after:
                    await other.stopped.wait()
            await child.stop()

        await asyncio.gather(*(stop(child) for child in self._children.values()))

    async def _write_states(self) -> None:
        started = int(CLOCK.now().timestamp())
        while True:
            self._changes.clear()
            state.write(
                self._layout,
                {
                    "pid": os.getpid(),
                    "started_at": started,
                    "ports": self._ports,
                    "processes": {name: child.describe() for name, child in self._children.items()},
                },
            )
            await self._changes.wait()

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(ROTATE_EVERY_S)
            for path in self._layout.logs.glob("*.log"):
                rotate(path)


def main(home: str, lock: str, report: str) -> int:
    """Run on a prepared folder; ``lock`` and ``report`` are inherited descriptors."""
    for descriptor in (int(lock), int(report)):
        os.set_inheritable(descriptor, False)  # ours alone, so that both end with us
    layout = Layout(Path(home))
    port_map = ports.remembered(layout.ports_file)

    async def supervise() -> int:
        specs = processes.specs(layout, port_map)
        return await Supervisor(layout, port_map, specs).run(Report(os.fdopen(int(report), "w")))

    return asyncio.run(supervise())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
