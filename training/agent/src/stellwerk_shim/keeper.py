"""The keeper of a run that begins in a warm process: a fork of that, and the parent of the run.

Its supervisor, which is no fork of it, asks over a socket and says all that the run needs; it
watches, limits and stops the run from outside. What only a parent gets to know the keeper tells:
a pidfd when the run is there, its wait status and what it used when it has ended. When the
supervisor is gone so is the run.
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

CHILD = (signals.CHLD,)
FIXED = 4
"""Descriptors of each request: what to run, output, gate, report; then control groups' files and
namespaces to enter."""


def keep(descriptor: int, gate: int, interpreter: Interpreter) -> int:
    """Begin the run that is asked for on `descriptor` and stay until its supervisor is gone.

    `gate`: what keeps the warm process's cell, else -1. Returns an exit status.
    """
    _keep_only({descriptor, gate})
    os.setsid()
    child.become_subreaper()
    link = socket.socket(fileno=descriptor)
    text, given, lost = messages.receive(link)
    if not text or lost:
        return 1
    statuses: dict[int, int] = {}

    def reap(_number: int, _frame: object) -> None:
        """Orphans of the run are ours."""
        try:
            while (found := os.waitpid(-1, os.WNOHANG))[0]:
                statuses[found[0]] = found[1]
        except ChildProcessError:
            return

    signals.handle(signals.CHLD, reap)
    signals.mask(signals.BLOCK, CHILD)
    try:
        pid = _begin(json.loads(text), given, interpreter)
    except OSError as error:
        link.send((error.strerror or "").encode())
        return 1
    pidfd = os.pidfd_open(pid)  # not reaped yet, so it is this child
    signals.mask(signals.UNBLOCK, CHILD)
    for each in given:
        os.close(each)
    messages.send(link, b"began", [pidfd])
    if not _wait(link, pidfd):
        os.kill(pid, signals.KILL)
        return 1
    told = {"status": statuses[pid], "used": child.used_by_children(), "left": _has_children()}
    link.send(json.dumps(told).encode())
    _await_others(link)
    return 0


def _begin(asked: dict[str, list[int]], given: list[int], interpreter: Interpreter) -> int:
    """Fork the run; returns its id."""
    launch_file, output, gate, report = given[:FIXED]
    groups = len(given) - FIXED - len(asked["namespaces"])
    doors, namespaces = given[FIXED:][:groups], given[FIXED:][groups:]
    for at, kind in enumerate(asked["namespaces"]):
        kernel.enter(namespaces[at], kind)
    launch = json.loads(files.read_all(launch_file))
    own = os.getpid()
    pid = os.fork()
    if pid == 0:
        walls = kernel.give_up_privileges if namespaces else None
        child.become(launch, output, (gate, report), doors, own, walls, interpreter)
    return pid


def _wait(link: socket.socket, pidfd: int) -> bool:
    """Wait for the end of the run; False if the supervisor was gone first."""
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    return pidfd in [number for number, _ in poll.poll()]


def _await_others(link: socket.socket) -> None:
    """Until all of the run is gone, which the supervisor sees to, or the supervisor itself is."""
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signals.wake_by(wake, warn_on_full_buffer=False)
    poll = select.poll()
    poll.register(link, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while _has_children() and link.fileno() not in [number for number, _ in poll.poll()]:
        os.read(woken, 4096)


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _keep_only(kept: set[int]) -> None:
    first = 3
    for each in sorted(number for number in kept if number >= first):
        os.closerange(first, each)
        first = each + 1
    os.closerange(first, 1 << 16)
