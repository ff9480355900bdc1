"""Our end of a fork server (`stellwerk_shim.nursery`): start it, ask it for supervisors, end it.

Its supervisors are no children of this process: each is followed by the pidfd that came with the
answer, as one that is adopted after a restart. They outlive the server and this process.
"""

import os
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

ANSWER_S = 20.0
_STDERR = 2


@dataclass(frozen=True, slots=True)
class Spawned:
    """A supervisor. The pidfd is the caller's to close."""

    pid: int
    pidfd: int


class ForkServer:
    """One process. ``link`` is our end of its connection; the end of it ends the process."""

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        descriptor: int,
        output: str = os.devnull,
    ) -> None:
        """Start ``command`` in a session of its own, its connection on ``descriptor``."""
        self.link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        null = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)]
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        quiet = [(os.POSIX_SPAWN_OPEN, number, output, flags, 0o600) for number in (1, _STDERR)]
        with theirs:
            self.pid = os.posix_spawn(
                command[0],
                list(command),
                env,
                file_actions=[
                    *null,
                    (os.POSIX_SPAWN_DUP2, theirs.fileno(), descriptor),
                    *quiet,
                ],
                setsid=True,
                setsigmask=[],
            )
        self.link.settimeout(ANSWER_S)

    def spawn(self, folder: Path, view: Sequence[int] = ()) -> Spawned:
        """Start a supervisor for ``folder``, whose run may have a ``view``.

        Raises OSError when the server is gone or hangs.
        """
        if view:
            socket.send_fds(self.link, [os.fsencode(folder)], view)
        else:
            self.link.send(os.fsencode(folder))
        answer, descriptors, _, _ = socket.recv_fds(self.link, 64, 1)
        if not answer or not descriptors:
            raise ConnectionResetError("the fork server ended before it answered")
        return Spawned(int(answer), descriptors[0])

    def close(self) -> None:
        """End it; supervisors go on."""
        self.link.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)
