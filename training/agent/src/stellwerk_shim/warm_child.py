"""A run that begins in a walled-in warm process: the side of its supervisor.

The other side is `stellwerk_shim.warm_runs`.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time

from stellwerk_shim import cgroup, messages, signals, tree
from stellwerk_shim.cell import NUMBER, CellError
from stellwerk_shim.child import LaunchError, pass_gate

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stellwerk_shim.cell import Cell

NEEDED = ("argv", "env", "cwd", "nofile", "umask", "must_be_warm")
"""What of launch.json begins a run; the rest is not for what an environment has loaded."""
BEGUN_S = 9.0
"""For all that the warm process has to do; the executor waits a little longer for us."""
REAPED_S = 1.0
MEMORY = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
LEVELS = 3
"""Namespaces of processes: ours, the warm process's, the run's."""


class NotBegunError(Exception):
    """The warm process did not begin the run, which may begin elsewhere; the text says why."""


class LostError(Exception):
    """Nobody can say any more how the run ended."""


class WarmChild:
    """The run's first process, see `stellwerk_shim.child.Child`: a child of the warm process.

    ``place``: our end of a socket to that, the gate of the cell's processes, the users and the gate
    of the warm process's own cell, which is there as long as we hold that. The run's end is the
    kernel's word: the warm process may be gone by then.
    Nothing that the warm process says is believed: its packages are anybody's code.
    """

    def __init__(
        self, launch: dict[str, object], output: int, cell: Cell, place: Sequence[int]
    ) -> None:
        self.pid = self.start_ticks = 0
        self._below: list[int] = []
        self._pidfd = -1
        self._cpu_s, self._peak_bytes = 0.0, 0
        self._cell = cell
        link, cell_gate, users, self._reaper = place
        self._warm, self._until = socket.socket(fileno=link), time.monotonic() + BEGUN_S
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._report, report = os.pipe2(os.O_CLOEXEC)
        needed = os.memfd_create("launch")
        os.write(needed, json.dumps({name: launch.get(name) for name in NEEDED}).encode())
        os.lseek(needed, 0, os.SEEK_SET)
        own = [needed, gate, report]
        try:
            processes, first, waits = self._receive(3)
            own.append(processes)
            self._inside = os.fstat(processes)
            numbers = tree.numbers(first)
            if len(numbers) != LEVELS or numbers[-1] != 1 or not self._is_inside(numbers[0]):
                raise NotBegunError("its warm process made no processes for it")
            self._first = first
            doors = cgroup.doors(launch.get("cgroups") or [])  # type: ignore[arg-type]
            own += doors
            cell.make_below(users, processes, first, cell_gate)
            with socket.socket(fileno=waits) as run:  # laid out beside us, told from there
                run.settimeout(self._left())
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
            pid, *below = tree.numbers(self._pidfd) or [0]
            if pid and not self._is_inside(pid):
                raise NotBegunError("its warm process forked nothing for it")
            self._below = below[:1]
            self.pid, self.start_ticks = pid, tree.start_ticks(pid) if pid else 0
        except OSError:
            self.pid = 0  # it has ended at its gate, and said why if it could
        status = self._helper_status()
        try:
            failure = pass_gate(self._gate, self._report, self._left())
        except (OSError, ValueError) as error:
            raise NotBegunError(str(error)) from error
        if status:
            raise NotBegunError(f"cannot make its sandbox: {failure}")
        if failure:
            raise LaunchError(failure)
        if not self.pid:
            raise NotBegunError("its fork ended before the script began")

    def end(self) -> int:
        """The wait status. Raises LostError where it is not known any more."""
        try:
            status, self._cpu_s = tree.ended(self.pid, self.start_ticks)
        except OSError as error:
            raise LostError from error
        # Before the cell: its first process ends when nobody of it is left to be reaped.
        try:
            self._warm.settimeout(REAPED_S)
            self._warm.send(b"reap")
            told = int(self._warm.recv(messages.MAX_BYTES))
            self._peak_bytes = max(0, min(told, MEMORY))
        except (OSError, ValueError):
            self._have_it_reaped()
        return status

    def _have_it_reaped(self) -> None:
        """The warm process is gone, and with it what it knew; somebody else has its children."""
        try:
            os.write(self._reaper, b"".join(map(NUMBER.pack, self._below)))
        except OSError:
            pass  # that is gone as well

    def used(self) -> tuple[float, int]:
        """CPU seconds of the run and the size of its largest process in bytes, at its end.

        The size is 0 where the warm process is gone.
        """
        return self._cpu_s, self._peak_bytes

    def processes(self) -> list[int]:
        """All processes of the run, as long as its first goes on."""
        return [self.pid, *tree.descendants(self.pid, *tree.numbers(self._first)[:1])]

    def ask_to_end(self) -> None:
        """SIGTERM to the run's group. Raises ProcessLookupError where there is none any more."""
        gone = select.poll()
        gone.register(self._pidfd, select.POLLIN)
        if gone.poll(0):  # its number may be another's: it is not ours to reap
            raise ProcessLookupError
        os.killpg(self.pid, signals.TERM)

    def kill(self) -> None:
        """End all processes of the run."""
        self._cell.end(0.0)

    def _receive(self, count: int) -> list[int]:
        """So many descriptors from the warm process. Raises NotBegunError."""
        try:
            self._warm.settimeout(self._left())
            text, given, _ = messages.receive(self._warm)
        except OSError as error:
            raise NotBegunError(str(error)) from error
        if len(given) != count:
            raise NotBegunError(text.decode(errors="replace") or "its warm process is gone")
        return given

    def _helper_status(self) -> int:
        """How it ended that laid the cell out, which the script shall not see any more.

        Raises NotBegunError where it does not end: its child is among what the warm process sees.
        """
        pidfd = os.pidfd_open(self._helper)
        gone = select.poll()
        gone.register(pidfd, select.POLLIN)
        ended = gone.poll(self._left() * 1000)
        os.close(pidfd)
        if not ended:
            raise NotBegunError("its cell could not be laid out in time")
        return os.waitpid(self._helper, 0)[1]

    def _left(self) -> float:
        return max(0.001, self._until - time.monotonic())  # 0 would mean not to wait at all

    def _is_inside(self, pid: int) -> bool:
        """Whether that process is one of the cell's. Raises OSError where there is none."""
        found = os.stat(f"/proc/{pid}/ns/pid")
        return os.path.samestat(found, self._inside)
