"""The keeper of a run that begins in a walled-in warm process: a fork of that, parent of the run.

The supervisor, which is outside and no fork of it, says over a socket all that the run needs; it
watches, limits and stops the run. What only a parent gets to know the keeper tells: a pidfd when
the run is there, its wait status and what it used when it has ended. When the supervisor is gone
so is the run.
"""

from __future__ import annotations

import json
import os
import select
import socket

from stellwerk_shim import child, files, kernel, messages, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from stellwerk_shim.forked import Interpreter

FIXED = 4
"""Descriptors of each request: what to run, output, gate, report; then control groups' files and
namespaces to enter."""


def keep(descriptor: int, gate: int, interpreter: Interpreter) -> int:
    """Begin the run that is asked for on `descriptor`, wait for its end and tell it.

    `gate`: what keeps the warm process's cell. Returns an exit status.
    """
    _keep_only(descriptor, gate)
    os.setsid()
    link = socket.socket(fileno=descriptor)
    text, given, lost = messages.receive(link)
    if not text or lost:
        return 1
    try:
        pid = _begin(json.loads(text), given, interpreter)
    except OSError as error:
        link.send((error.strerror or "").encode())
        return 1
    pidfd = os.pidfd_open(pid)
    for each in given:
        os.close(each)
    messages.send(link, b"began", [pidfd])
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    if pidfd not in [number for number, _ in poll.poll()]:
        os.kill(pid, signals.KILL)  # the supervisor is gone
        return 1
    status = os.waitpid(pid, 0)[1]
    link.send(json.dumps({"status": status, "used": child.used_by_children()}).encode())
    return 0


def _begin(asked: dict[str, list[int]], given: list[int], interpreter: Interpreter) -> int:
    """Fork the run, which is in its cell from the beginning; returns its id."""
    launch_file, output, gate, report = given[:FIXED]
    groups = len(given) - FIXED - len(asked["namespaces"])
    doors, namespaces = given[FIXED:][:groups], given[FIXED:][groups:]
    for at, kind in enumerate(asked["namespaces"]):
        kernel.enter(namespaces[at], kind)
    launch = json.loads(files.read_all(launch_file))
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        walls = kernel.give_up_privileges
        child.become(launch, output, (gate, report), doors, own, walls, interpreter)
    return pid


def _keep_only(*kept: int) -> None:
    first = 3
    for each in sorted(kept):
        os.closerange(first, each)
        first = each + 1
    os.closerange(first, 1 << 16)
