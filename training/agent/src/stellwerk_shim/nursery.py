"""The fork server of supervisors: a process that has their code loaded and forks one an attempt.

The executor holds the other end of a SOCK_SEQPACKET pair and sends the path of an attempt folder,
with the descriptors that its supervisor needs (`stellwerk_shim.supervisor`). The answer is the
supervisor's process id with a pidfd of it, so the id can never mean another process. A supervisor
cuts every tie at once: it outlives this process and the executor. The end of the connection ends
this process, so it never outlives the executor that started it.
"""

from __future__ import annotations

import os

from stellwerk_shim import messages
from stellwerk_shim.fork_server import fork_for_each
from stellwerk_shim.supervisor import supervise

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    import socket

    from stellwerk_shim.forked import Interpreter


def serve(link: socket.socket, interpreter: Interpreter | None = None) -> None:
    """Fork a supervisor for each folder that arrives, until the connection is closed.

    Their runs begin in a fork of the ``interpreter`` if there is one.
    """

    def answer(pid: int) -> None:
        pidfd = os.pidfd_open(pid)
        try:
            messages.send(link, b"%d" % pid, [pidfd])
        finally:
            os.close(pidfd)

    def become(folder: bytes, given: list[int]) -> int:
        return supervise(os.fsdecode(folder), given, interpreter)

    fork_for_each(link, become, answer)
