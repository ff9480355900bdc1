"""Our ends of the processes that fork: supervisors (`stellwerk_shim.nursery`), warm ones' runs.

What they fork are no children of this process: a supervisor is followed by the pidfd that came with
the answer, as one that is adopted after a restart. All outlive the server and this process.
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


class Server:
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

    def close(self) -> None:
        """End it; what it has forked goes on."""
        self.link.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        with suppress(ChildProcessError):
            os.waitpid(self.pid, 0)


class ForkServer(Server):
    """Forks supervisors."""

    def spawn(self, folder: Path, given: Sequence[int] = ()) -> Spawned:
        """Start a supervisor for ``folder`` with these descriptors.

        Raises OSError when the server is gone or hangs.
        """
        if given:
            socket.send_fds(self.link, [os.fsencode(folder)], given)
        else:
            self.link.send(os.fsencode(folder))
        answer, descriptors, _, _ = socket.recv_fds(self.link, 64, 1)
        if not answer or not descriptors:
            raise ConnectionResetError("the fork server ended before it answered")
        return Spawned(int(answer), descriptors[0])


class WarmServer(ForkServer):
    """A warm process: outside of walls it forks supervisors, behind them it lends itself to ours.

    There it is no child of ours, and ``pid`` is its own once it began.
    """

    _pidfd = -1
    _namespaces: tuple[int, ...] = ()

    @property
    def walled(self) -> bool:
        """Whether it is behind walls."""
        return self._pidfd >= 0

    def began(self, pid: int, pidfd: int) -> None:
        """What was started has begun the warm process, behind walls, and is about to end."""
        os.waitpid(self.pid, 0)
        self.pid, self._pidfd = pid, pidfd

    def is_in(self) -> None:
        """It is behind its walls: open what its runs need of them. Raises OSError."""
        flags = os.O_RDONLY | os.O_CLOEXEC
        opened = [os.open(f"/proc/{self.pid}/ns/{kind}", flags) for kind in ("user", "pid")]
        self._namespaces = tuple(opened)

    def lend(self) -> tuple[socket.socket, tuple[int, ...]]:
        """Fork for one run.

        Our end of a socket to the fork, for the run's supervisor, and the descriptors of the users
        and processes of its cell, which stay open here. Raises OSError when it is gone.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                socket.send_fds(self.link, [b"run"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        return ours, self._namespaces

    def close(self) -> None:
        """End it; its runs go on."""
        if self._pidfd < 0:
            super().close()
            return
        self.link.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        for descriptor in (self._pidfd, *self._namespaces):
            os.close(descriptor)
