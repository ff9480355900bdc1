"""A run that begins in a walled-in warm process: the side of its supervisor.

The other side is `stellwerk_shim.warm_runs`.
"""

from __future__ import annotations

import json
import os
import socket

from stellwerk_shim import cgroup, messages, tree
from stellwerk_shim.cell import CellError
from stellwerk_shim.child import LaunchError, pass_gate

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stellwerk_shim.cell import Cell

NEEDED = ("argv", "env", "cwd", "nofile", "umask", "must_be_warm")
"""What of launch.json begins a run; the rest is not for what an environment has loaded."""
REAPED_S = 1.0


class NotBegunError(Exception):
    """The warm process did not begin the run, which may begin elsewhere; the text says why."""


class LostError(Exception):
    """Nobody can say any more how the run ended."""


class WarmChild:
    """The run's first process, see `stellwerk_shim.child.Child`: a child of the warm process.

    ``place``: our end of a socket to that, the gate of the cell's processes, the users of the warm
    process's own cell. The run's end is the kernel's word: the warm process may be gone by then.
    """

    def __init__(
        self, launch: dict[str, object], output: int, cell: Cell, place: Sequence[int]
    ) -> None:
        self.pid = self.start_ticks = 0
        self._pidfd = -1
        self._cpu_s, self._peak_bytes = 0.0, 0
        self._cell = cell
        link, cell_gate, users = place
        self._warm = socket.socket(fileno=link)
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._report, report = os.pipe2(os.O_CLOEXEC)
        needed = os.memfd_create("launch")
        os.write(needed, json.dumps({name: launch.get(name) for name in NEEDED}).encode())
        os.lseek(needed, 0, os.SEEK_SET)
        own = [needed, gate, report]
        try:
            processes, self._first, waits = self._receive(3)
            own.append(processes)
            doors = cgroup.doors(launch.get("cgroups") or [])  # type: ignore[arg-type]
            own += doors
            cell.make_below(users, processes, self._first, cell_gate)
            with socket.socket(fileno=waits) as run:  # laid out beside us, told from there
                self._helper = cell.lay_out([needed, output, gate, report, *doors], run)
        except (CellError, OSError) as error:
            raise NotBegunError(str(error)) from error
        finally:
            for descriptor in own:
                os.close(descriptor)

    def fileno(self) -> int:
        """Readable when the run has ended."""
        return self._pidfd

    def begin(self) -> None:
        """Open the gate. Returns when the script is about to run.

        Raises LaunchError if it cannot be, NotBegunError.
        """
        (self._pidfd,) = self._receive(1)
        try:
            self.pid = tree.pid_of(self._pidfd)
            self.start_ticks = tree.start_ticks(self.pid)
        except (OSError, ValueError):
            self.pid = 0  # it has ended at its gate, and said why if it could
        _, status = os.waitpid(self._helper, 0)  # done by now; the script shall not see it
        failure = pass_gate(self._gate, self._report)
        if status:
            raise NotBegunError(f"cannot make its sandbox: {failure}")
        if failure:
            raise LaunchError(failure)
        if not self.pid:
            raise NotBegunError("its fork ended before the script began")

    def end(self) -> int:
        """The wait status. Raises LostError where it is not known any more."""
        try:
            status, self._cpu_s = tree.ended(self.pid)
        except OSError as error:
            raise LostError from error
        # Before the cell: its first process ends when nobody of it is left to be reaped.
        try:
            self._warm.settimeout(REAPED_S)
            self._warm.send(b"reap")
            self._peak_bytes = int(self._warm.recv(messages.MAX_BYTES) or 0)
        except (OSError, ValueError):
            pass  # the warm process is gone, and with it what it knew
        return status

    def used(self) -> tuple[float, int]:
        """CPU seconds of the run and the size of its largest process in bytes, at its end.

        The size is 0 where the warm process is gone.
        """
        return self._cpu_s, self._peak_bytes

    def processes(self) -> list[int]:
        """All processes of the run, as long as its first goes on."""
        return [self.pid, *tree.descendants(self.pid, tree.pid_of(self._first))]

    def kill(self) -> None:
        """End all processes of the run."""
        self._cell.end(0.0)

    def _receive(self, count: int) -> list[int]:
        """So many descriptors from the warm process. Raises NotBegunError."""
        try:
            text, given, _ = messages.receive(self._warm)
        except OSError as error:
            raise NotBegunError(str(error)) from error
        if len(given) != count:
            raise NotBegunError(text.decode(errors="replace") or "its warm process is gone")
        return given
