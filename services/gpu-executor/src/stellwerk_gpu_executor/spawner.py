"""Starts supervisors, detached, through a fork server that has the supervisor's code loaded.

A supervisor is thus no child of this process: it is followed by the pidfd that came with the
answer, as one that is adopted after a restart.
"""

import os
import signal
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import structlog

import stellwerk_shim

_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")
ANSWER_S = 20.0
TRIES = 3

log = structlog.get_logger()


class SpawnError(Exception):
    """No fork server answers: this machine has no room for another process."""


@dataclass(frozen=True, slots=True)
class Spawned:
    """A supervisor. The pidfd is the caller's to close."""

    pid: int
    pidfd: int


@dataclass(frozen=True, slots=True)
class _Nursery:
    """A fork server: its process and our end of the connection, whose closing ends it."""

    pid: int
    link: socket.socket


class Spawner:
    """One fork server, begun when it is first needed and again whenever it is gone."""

    def __init__(self) -> None:
        self._nursery: _Nursery | None = None

    def prepare(self) -> None:
        """Make sure that the fork server is there."""
        if self._nursery is None:
            self._nursery = _begin()

    def spawn(self, folder: Path) -> Spawned:
        """Start a supervisor for ``folder``. Raises SpawnError.

        After a lost answer it is asked again: of two supervisors the folder's lock lets one run.
        """
        for _ in range(TRIES):
            self.prepare()
            try:
                return self._ask(folder)
            except (OSError, ValueError) as error:
                log.warning("fork server lost", action="fork_server_lost", error=str(error))
                self.close()
        raise SpawnError(f"no supervisor could be started in {TRIES} tries")

    def close(self) -> None:
        """End the fork server; supervisors go on."""
        if self._nursery is not None:
            nursery, self._nursery = self._nursery, None
            nursery.link.close()
            with suppress(ProcessLookupError):
                os.kill(nursery.pid, signal.SIGKILL)
            os.waitpid(nursery.pid, 0)

    def _ask(self, folder: Path) -> Spawned:
        if self._nursery is None:
            raise OSError("no fork server")
        self._nursery.link.send(os.fsencode(folder))
        answer, descriptors, _, _ = socket.recv_fds(self._nursery.link, 64, 1)
        if not answer or not descriptors:
            raise OSError("it ended before it answered")
        return Spawned(int(answer), descriptors[0])


def _begin() -> _Nursery:
    """Start the fork server in its own session, with no environment and no descriptor of ours."""
    # The interpreter may need the first to load at all; the second spares it a search for a locale.
    env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_WRONLY, 0) for number in (1, 2)]
    with theirs:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", str(_ENTRY), "--serve"],
            env | {"LC_CTYPE": "C.UTF-8"},
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0), *quiet],
            setsid=True,
            setsigmask=[],
        )
    ours.settimeout(ANSWER_S)
    return _Nursery(pid, ours)
