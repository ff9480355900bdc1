"""A run that begins in a walled-in warm process: the side of its supervisor.

The other side is `stellwerk_shim.keeper`.
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
    from stellwerk_shim.cell import Cell

NEEDED = ("argv", "env", "cwd", "nofile", "umask", "must_be_warm")
"""What of launch.json begins a run; the rest is not for what an environment has loaded."""


class NotBegunError(Exception):
    """The warm process did not begin the run, which may begin elsewhere; the text says why."""


class KeeperLostError(Exception):
    """The run's parent has ended, and with it the run."""


class WarmChild:
    """The run's first process, see `stellwerk_shim.child.Child`.

    ``keeper``: our end of a socket to a fork of the warm process, which becomes the run's parent.
    """

    def __init__(
        self, launch: dict[str, object], output: int, cell: Cell, keeper: socket.socket
    ) -> None:
        self.pid = self.family = self.start_ticks = 0
        self._used = (0.0, 0)
        self._keeper = keeper
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._report, report = os.pipe2(os.O_CLOEXEC)
        needed = os.memfd_create("launch")
        os.write(needed, json.dumps({name: launch.get(name) for name in NEEDED}).encode())
        os.lseek(needed, 0, os.SEEK_SET)
        given = [needed, gate, report]
        try:
            cell.make()
            namespaces = cell.namespaces()
            given += [descriptor for _, descriptor in namespaces]
            doors = cgroup.doors(launch.get("cgroups") or [])  # type: ignore[arg-type]
            given += doors
            asked = {"namespaces": [kind for kind, _ in namespaces]}
            wanted = [needed, output, gate, report, *doors, *(each for _, each in namespaces)]
            messages.send(keeper, json.dumps(asked).encode(), wanted)
        except (CellError, OSError) as error:
            raise NotBegunError(str(error)) from error
        finally:
            for descriptor in given:
                os.close(descriptor)

    def fileno(self) -> int:
        """Readable when `end` has something to take."""
        return self._keeper.fileno()

    def begin(self) -> None:
        """Open the gate. Returns when the script is about to run.

        Raises LaunchError if it cannot be, NotBegunError.
        """
        try:
            text, given, _ = messages.receive(self._keeper)
        except OSError as error:
            raise NotBegunError(str(error)) from error
        if not given:
            raise NotBegunError(text.decode() or "it ended before it had forked")
        try:
            self._identify(given[0])
        except (OSError, ValueError):
            self.pid = 0  # it has ended at its gate already, and said why
        finally:
            os.close(given[0])
        failure = pass_gate(self._gate, self._report)
        if failure:
            raise LaunchError(failure)
        if not self.pid:
            raise NotBegunError("its fork ended before the script began")

    def _identify(self, pidfd: int) -> None:
        """Who the run and its parent are, as they are called here.

        While the run waits at its gate: afterwards it may be gone at any moment.
        """
        with open(f"/proc/self/fdinfo/{pidfd}") as facts:
            self.pid = int(next(line for line in facts if line.startswith("Pid:")).split()[1])
        self.start_ticks, self.family = tree.start_ticks(self.pid), tree.parent(self.pid)

    def end(self) -> int:
        """The wait status, once there is one. Raises KeeperLostError."""
        try:
            text = self._keeper.recv(messages.MAX_BYTES)
            told = json.loads(text)
        except (OSError, ValueError) as error:
            raise KeeperLostError from error
        self._used = float(told["used"][0]), int(told["used"][1])
        return int(told["status"])

    def used(self) -> tuple[float, int]:
        """CPU seconds of the run and the size of its largest process in bytes, at its end."""
        return self._used
