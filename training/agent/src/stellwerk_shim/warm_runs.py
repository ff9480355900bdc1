"""The runs of a walled-in warm process: forks of it, in cells that their supervisors lay out.

A supervisor is outside and no fork of this process. For each run it gets, over a socket, the
processes of a cell that are made here, and says in return what the run needs; it watches, limits
and stops the run, and reads from the kernel how it ended. This process is only its parent: it keeps
what is left of a run until the supervisor has seen it.
"""

from __future__ import annotations

import gc
import json
import os
import select
import socket

from stellwerk_shim import child, files, kernel, messages, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

    from stellwerk_shim.forked import Interpreter

INIT = "/bin/cat"
"""First process of a run's cell: waits for the end of its stdin, and with it the rest ends."""
FIXED = 4
"""Descriptors of each request: what to run, output, gate, report; then control groups' files and
namespaces to enter."""
REAP_MS = 20
REAP = b"reap"


class WarmRun:
    """One run: the socket to its supervisor, its cell's processes, its own id once it is there."""

    def __init__(self, link: socket.socket, processes: int, first: int) -> None:
        self.link, self.processes, self.first = link, processes, first
        self.pid = 0


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
        signals.handle(signals.CHLD, signals.DEFAULT)  # whatever a package has made of it
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
        """Make the processes of a cell and hand them to a supervisor; False where all is over."""
        text, given, lost = messages.receive(self._link)
        if not text or lost:  # what is not whole would fail; another server may get it
            return False
        link, hold = socket.socket(fileno=given[0]), given[1]
        kernel.leave(kernel.PROCESSES)
        try:  # a program and no fork, which would copy the page tables of a framework
            first = os.posix_spawn(INIT, [INIT], {}, file_actions=[(os.POSIX_SPAWN_DUP2, hold, 0)])
            inside = os.open("/proc/self/ns/pid_for_children", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            kernel.enter(self._own, kernel.PROCESSES)
            os.close(hold)
        self._runs[link.fileno()] = WarmRun(link, inside, first)
        self._poll.register(link, select.POLLIN)
        pidfd = os.pidfd_open(first)
        _send(link, b"place", inside, pidfd)
        os.close(pidfd)
        return True

    def _answer(self, run: WarmRun) -> None:
        try:
            text, given, lost = messages.receive(run.link)
        except OSError:
            text, given, lost = b"", [], False
        if text == REAP and run.pid:
            _, _, used = os.wait4(run.pid, 0)  # the supervisor has seen it end
            run.pid = 0
            _send(run.link, b"%d" % (used.ru_maxrss * 1024))
        elif not text or lost or run.pid:
            self._let_go(run)
        else:
            asked = json.loads(text)
            if "refused" in asked:
                _send(run.link, asked["refused"].encode())
            else:
                self._begin(run, asked["namespaces"], given)

    def _begin(self, run: WarmRun, kinds: list[int], given: list[int]) -> None:
        """Fork the run into its cell."""
        kernel.enter(run.processes, kernel.PROCESSES)
        try:
            run.pid = os.fork()
            if run.pid == 0:
                _become(kinds, given, self._interpreter)
        except OSError as error:
            _send(run.link, (error.strerror or "").encode())
            return
        finally:
            kernel.enter(self._own, kernel.PROCESSES)
            for each in given:
                os.close(each)
        pidfd = os.pidfd_open(run.pid)
        _send(run.link, b"began", pidfd)
        os.close(pidfd)

    def _let_go(self, run: WarmRun) -> None:
        """Its supervisor has seen the end of it, or is gone and takes it along."""
        number = run.link.fileno()
        self._poll.unregister(number)
        del self._runs[number]
        run.link.close()
        os.close(run.processes)
        for pid in filter(None, (run.pid, run.first)):
            os.kill(pid, signals.KILL)  # not reaped yet, so it is this child
            self._ending.append(pid)


def _become(kinds: list[int], given: list[int], interpreter: Interpreter) -> NoReturn:
    launch_file, output, gate, report = given[:FIXED]
    first = len(given) - len(kinds)
    doors, namespaces = given[FIXED:first], given[first:]

    def enter() -> None:
        for at, kind in enumerate(kinds):
            kernel.enter(namespaces[at], kind)
        kernel.give_up_privileges()

    try:
        launch = json.loads(files.read_all(launch_file))
        child.become(launch, output, (gate, report), doors, None, enter, interpreter)
    finally:
        os._exit(127)


def _send(link: socket.socket, text: bytes, *given: int) -> None:
    try:
        messages.send(link, text, given)
    except OSError:
        return  # nobody listens any more, which its closed end will tell
