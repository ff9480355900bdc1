"""Our ends of the processes that fork: supervisors (`stellwerk_shim.nursery`), warm ones' runs.

What they fork are no children of this process: a supervisor is followed by the pidfd that came with
the answer, as one that is adopted after a restart. All outlive the server and this process.
"""

import os
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stellwerk_shim import messages

ANSWER_S = 20.0
_STDERR, GIVEN = 2, 3


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
        answer, descriptors, _ = messages.receive(self.link)
        if not answer or not descriptors:
            raise ConnectionResetError("the fork server ended before it answered")
        return Spawned(int(answer), descriptors[0])


class WarmServer(ForkServer):
    """A warm process: outside of walls it forks supervisors, behind them it lends itself to ours.

    There it is no child of ours, and ``pid`` is its own once it began.
    """

    _pidfd = _gate = _users = -1

    @property
    def walled(self) -> bool:
        """Whether it is behind walls."""
        return self._pidfd >= 0

    def began(self, pid: bytes, given: Sequence[int]) -> None:
        """What was started has begun the warm process, behind walls, and is about to end.

        ``given``: its pidfd, then the gate and the users of its cell, which is there as long as
        anybody holds the gate. Raises ValueError for a second such word: it is not ours.
        """
        if self.walled or len(given) != GIVEN:
            for descriptor in given:
                os.close(descriptor)
            raise ValueError("it sends descriptors that nobody has asked for")
        os.waitpid(self.pid, 0)
        self._pidfd, self._gate, self._users = given
        self.pid = int(pid)

    @contextmanager
    def lend(self) -> Iterator[tuple[int, ...]]:
        """A place for one run: descriptors for its supervisor, which stay open here meanwhile.

        Our end of a socket, the gate of the run's processes, the users and the gate of the warm
        process's cell. Raises OSError when it is gone.
        """
        with ExitStack() as ours:
            link, theirs = map(ours.enter_context, socket.socketpair(type=socket.SOCK_SEQPACKET))
            hold, gate = os.pipe2(os.O_CLOEXEC)
            for descriptor in (hold, gate):
                ours.callback(os.close, descriptor)
            socket.send_fds(self.link, [b"place"], [theirs.fileno(), hold])
            yield link.fileno(), gate, self._users, self._gate

    def close(self) -> None:
        """End it; its runs go on."""
        if not self.walled:
            super().close()
            return
        self.link.close()
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        for descriptor in (self._pidfd, self._gate, self._users):
            if descriptor >= 0:
                os.close(descriptor)
