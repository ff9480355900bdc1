"""The runs of a walled-in warm process: forks of it, in cells that their supervisors lay out.

A supervisor is outside and no fork of this process. For each run it gets, over a socket, the
processes of a cell that are made here and another socket, on which the run's fork waits to hear
what it is and where to go; it watches, limits and stops the run, and reads from the kernel how it
ended. This process is only its parent: it keeps what is left of a run until the supervisor has seen
it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket

from stellwerk_shim import child, files, kernel, messages, signals
from stellwerk_shim.cell import INIT

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

    from stellwerk_shim.forked import Interpreter

FIXED = 4
"""Descriptors of each request: what to run, output, gate, report; then control groups' files and
namespaces to enter."""
REAP_MS = 20
REAP = b"reap"


class WarmRun:
    """One run: the socket to its supervisor, the first process of its cell, its own id."""

    def __init__(self, link: socket.socket, first: int, pid: int) -> None:
        self.link, self.first, self.pid = link, first, pid


class WarmRuns:
    """Serves ``link``, over which the executor asks for a place for each run."""

    def __init__(self, link: socket.socket, interpreter: Interpreter) -> None:
        self._link, self._interpreter = link, interpreter
        self._runs: dict[int, WarmRun] = {}
        self._ending: list[int] = []
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(link, select.POLLIN)

    def serve(self) -> None:
        """Until the connection is closed; runs go on."""
        gc.collect()
        gc.freeze()  # a collection in a child would copy every page it looks at
        while True:
            for number, _ in self._poll.poll(REAP_MS if self._ending else None):
                run = self._runs.get(number)
                if run is not None:
                    self._answer(run)
                elif not self._offer():
                    return
            self._ending = [pid for pid in self._ending if os.waitpid(pid, os.WNOHANG)[0] == 0]

    def _offer(self) -> bool:
        """Make the processes of a cell and fork a run into it; False where all is over."""
        text, given, lost = messages.receive(self._link)
        if not text or lost:  # what is not whole would fail; another server may get it
            return False
        link, hold = socket.socket(fileno=given[0]), given[1]
        theirs, waits = socket.socketpair(type=socket.SOCK_SEQPACKET)
        kernel.leave(kernel.PROCESSES)
        try:  # a program and no fork, which would copy the page tables of a framework
            first = os.posix_spawn(INIT, [INIT], {}, file_actions=[(os.POSIX_SPAWN_DUP2, hold, 0)])
            # The supervisor lays the cell out while the fork is made.
            processes = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
            _send(link, b"place", processes, os.pidfd_open(first), theirs.detach())
            pid = os.fork()
            if pid == 0:
                _become(waits, self._interpreter)
        finally:
            kernel.enter(self._own, kernel.PROCESSES)
            os.close(hold)
        waits.close()
        self._runs[link.fileno()] = WarmRun(link, first, pid)
        self._poll.register(link, select.POLLIN)
        _send(link, b"began", os.pidfd_open(pid))
        return True

    def _answer(self, run: WarmRun) -> None:
        try:
            text, _, _ = messages.receive(run.link)
        except OSError:
            text = b""
        if text == REAP and run.pid:
            _, _, used = os.wait4(run.pid, 0)  # the supervisor has seen it end
            run.pid = 0
            _send(run.link, b"%d" % (used.ru_maxrss * 1024))
        else:
            self._let_go(run)

    def _let_go(self, run: WarmRun) -> None:
        """Its supervisor has seen the end of it, or is gone and takes it along."""
        number = run.link.fileno()
        self._poll.unregister(number)
        del self._runs[number]
        run.link.close()
        for pid in filter(None, (run.pid, run.first)):
            os.kill(pid, signals.KILL)  # not reaped yet, so it is this child
            self._ending.append(pid)


def _become(waits: socket.socket, interpreter: Interpreter) -> NoReturn:
    """The fork: hear what the run is, and become it. Ends where nobody says it."""
    try:
        text, given, lost = messages.receive(waits)
        if not text or lost:
            os._exit(127)
        launch_file, output, gate, report = given[:FIXED]
        kinds = json.loads(text)
        first = len(given) - len(kinds)
        doors, namespaces = given[FIXED:first], given[first:]

        def enter() -> None:
            for at, kind in enumerate(kinds):
                kernel.enter(namespaces[at], kind)
            kernel.give_up_privileges()

        launch = json.loads(files.read_all(launch_file))
        child.become(launch, output, (gate, report), doors, None, enter, interpreter)
    finally:
        os._exit(127)


def _send(link: socket.socket, text: bytes, *given: int) -> None:
    """Send and close ``given``; that nobody listens any more is seen when ``link`` is read."""
    try:
        messages.send(link, text, given)
    except OSError:
        pass
    for each in given:
        os.close(each)
