"""Starts supervisors, detached, through a fork server that has the supervisor's code loaded."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

import stellwerk_shim
from stellwerk_gpu_executor.forkserver import ForkServer, Spawned

_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")
TRIES = 3

log = structlog.get_logger()


def starting_environment() -> dict[str, str]:
    """Variables of a process of ours: nothing that a user has chosen is among them.

    The interpreter may need the first to load; the second spares a search for a locale.
    """
    env = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return env | {"LC_CTYPE": "C.UTF-8"}


class SpawnError(Exception):
    """No fork server answers: this machine has no room for another process."""


class Spawner:
    """One fork server, begun when it is first needed and again whenever it is gone."""

    def __init__(self) -> None:
        self._server: ForkServer | None = None

    def prepare(self) -> ForkServer:
        """Make sure that the fork server is there."""
        if self._server is None:
            command = [sys.executable, "-I", "-S", str(_ENTRY), "--serve"]
            self._server = ForkServer(command, starting_environment(), descriptor=0)
        return self._server

    def spawn(self, folder: Path, view: Sequence[int] = ()) -> Spawned:
        """Start a supervisor for ``folder``, whose run may have a ``view``. Raises SpawnError.

        After a lost answer it is asked again: of two supervisors the folder's lock lets one run.
        """
        for _ in range(TRIES):
            try:
                return self.prepare().spawn(folder, view)
            except (OSError, ValueError) as error:
                log.warning("fork server lost", action="fork_server_lost", error=str(error))
                self.close()
        raise SpawnError(f"no supervisor could be started in {TRIES} tries")

    def close(self) -> None:
        """End the fork server; supervisors go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
