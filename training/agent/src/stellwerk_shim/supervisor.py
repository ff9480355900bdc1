"""The supervisor's life: start the run, carry its output, stop it when told, record its end.

One thread, one selector. Signals: SIGTERM stops the run (reason and grace from stop.json), SIGHUP
re-reads the lease, SIGCHLD reaps. Everything the executor needs is on disk before it is notified.
"""

from __future__ import annotations

import fcntl
import os
import select
import time

from stellwerk_shim import cgroup, files, signals, tree
from stellwerk_shim.cell import Cell
from stellwerk_shim.child import Child, LaunchError, become_subreaper
from stellwerk_shim.limits import LEASE_GRACE_S, NEVER, Limits
from stellwerk_shim.logpipe import LogPipe
from stellwerk_shim.notifier import Notifier
from stellwerk_shim.outcome import Outcome
from stellwerk_shim.runsocket import RunSocket
from stellwerk_shim.wakeups import Wakeups
from stellwerk_shim.warm_child import LostError, NotBegunError, WarmChild

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Sequence

    from stellwerk_shim.forked import Interpreter

GIB = 1 << 30
GRACE_S = 30.0
KILL_AGAIN_S = 1.0
CLEAR_S = 10.0
DRAIN_S = 5.0


def supervise(
    folder: str, given: Sequence[int] = (), interpreter: Interpreter | None = None
) -> int:
    """Run the attempt in `folder` to its end. Returns 0, or 1 if there is nothing to run here.

    Its script runs in a fork of this process where there is an `interpreter` for it. `given`:
    descriptors from the executor, as far as launch.json says that the run needs them: the two of a
    view for its cell, then, where it begins in a walled-in warm process, the four of its place
    there (see `stellwerk_shim.warm_child`).
    """
    kept = [] if interpreter is None or interpreter.mounts < 0 else [interpreter.mounts]
    _detach([*given, *kept])
    try:
        return _supervise(folder, given, interpreter)
    except BaseException as error:
        _tell(folder, error)
        raise


def _supervise(folder: str, given: Sequence[int], interpreter: Interpreter | None) -> int:
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return 1  # another supervisor has this attempt
    launch = files.read_json(folder, "launch.json")
    if not launch or files.read_json(folder, "exit.json"):
        return 1
    wanted: dict[str, object] | None = launch.get("cell")  # type: ignore[assignment]
    cell = Cell(wanted, given[:2]) if wanted else None
    try:
        Supervisor(folder, lock, launch, interpreter, cell, given[2:]).run()
    except NotBegunError as error:  # the executor has it begin elsewhere
        if cell is not None:
            cell.end(KILL_AGAIN_S)
        cgroup.end_all(launch.get("cgroups") or [])  # type: ignore[arg-type]
        files.write_json(folder, "not_begun.json", {"why": str(error)})
        return 1
    return 0


class Supervisor:
    """One attempt from start to exit record."""

    def __init__(
        self,
        folder: str,
        lock: int,
        launch: dict[str, object],
        interpreter: Interpreter | None,
        cell: Cell | None,
        place: Sequence[int],
    ) -> None:
        self._folder, self._lock = folder, lock
        self._launch = launch
        self._cell = cell
        become_subreaper()
        self._cgroups: list[str] = launch.get("cgroups") or []  # type: ignore[assignment]
        self._log = LogPipe(
            folder + "/std.log",
            _integer(launch.get("log_limit_bytes"), GIB),
            drop=launch.get("log_overflow") == "drop",
        )
        output = self._log.child_end
        self._program: Child | WarmChild
        if cell is None or not place:
            self._program = Child(launch, output, cell, interpreter)
        else:
            self._program = WarmChild(launch, output, cell, place)
        os.close(output)
        self._wakeups = Wakeups()
        self._record = files.Reserved(folder, "exit.json")
        self._socket = RunSocket(folder, GIB)
        self._notifier = Notifier(str(launch["notify_path"]), str(launch["notify_key"]))
        self._outcome = Outcome(launch)
        self._limits = Limits(folder, launch, self._outcome.started_mono)
        self._status: int | None = None
        self._kill_at = NEVER

    def run(self) -> None:
        """Start the run, wait for its end, write exit.json, notify. Raises NotBegunError."""
        try:
            self._program.begin()
        except (LaunchError, OSError) as error:
            self._outcome.launch_failed(str(error))
            self._clear()
        else:
            self._announce()
            try:
                self._loop()
            except LostError:  # as if we had ended: the executor clears up and says so
                self._end_cell()
                self._drain()
                return
            self._clear()
        self._finish()

    def _announce(self) -> None:
        own = os.getpid()
        files.write_json(
            self._folder,
            "shim.json",
            {
                "pid": own,
                "start_ticks": tree.start_ticks(own),
                "child_pid": self._program.pid,
                "child_start_ticks": self._program.start_ticks,
                "boot_id": tree.BOOT_ID,
                "started_at": self._outcome.started_at,
                "started_mono": self._outcome.started_mono,
                "began_mono": time.monotonic(),
            },
        )
        self._notifier.send(time.monotonic())

    def _loop(self) -> None:
        """Serve until the run's first process has ended."""
        poll = select.poll()
        poll.register(self._wakeups.fileno(), select.POLLIN)
        watched: dict[int, object] = {}
        self._reap()  # it may have ended before signals were watched
        while self._status is None:
            self._watch(poll, watched)
            now = time.monotonic()
            wait = min(
                self._log.deadline,
                self._socket.deadline,
                self._notifier.deadline,
                self._limits.deadline,
                self._kill_at,
            )
            ready = poll.poll(None if wait == NEVER else max(0.0, wait - now) * 1000)
            self._serve([watched.get(descriptor, self._wakeups) for descriptor, _ in ready])

    def _watch(self, poll: select.poll, watched: dict[int, object]) -> None:
        """Make `poll` watch exactly what is wanted now."""
        wanted: dict[int, object] = {each.fileno(): each for each in self._socket.selectable}
        if isinstance(self._program, WarmChild):
            wanted[self._program.fileno()] = self._program
        if self._log.wants_input:
            wanted[self._log.pipe] = self._log
        for descriptor in watched:
            if descriptor not in wanted:
                poll.unregister(descriptor)
        for descriptor in wanted:
            if descriptor not in watched:
                poll.register(descriptor, select.POLLIN)
        watched.clear()
        watched.update(wanted)

    def _serve(self, ready: list[object]) -> None:
        now = time.monotonic()
        grew = False
        for source in ready:
            if source is self._wakeups:
                self._handle_signals(now)
            elif source is self._log:
                grew |= self._log.copy(now)
            elif isinstance(source, WarmChild):
                self._status = source.end()
            else:
                grew |= self._socket.handle(source, now)  # type: ignore[arg-type]
        grew |= self._log.tick(now)
        grew |= self._socket.tick(now)
        if grew:
            self._notifier.send(now)
        self._notifier.tick(now)
        self._enforce(now)

    def _handle_signals(self, now: float) -> None:
        for number in self._wakeups.take():
            if number == signals.TERM:
                stop = files.read_json(self._folder, "stop.json")
                grace = stop.get("grace_s", self._launch.get("grace_s"))
                message = stop.get("message")
                self._stop(
                    str(stop.get("reason") or "canceled"),
                    str(message) if message else None,
                    _number(grace, GRACE_S),
                    now,
                )
            elif number == signals.HUP:
                self._limits.read_lease()
            elif number == signals.CHLD:
                self._reap()

    def _stop(self, reason: str, message: str | None, grace: float, now: float) -> None:
        """SIGTERM to the run's group, once; a repeated stop may only bring the kill nearer."""
        if not self._outcome.stopping:
            try:
                self._program.ask_to_end()
            except ProcessLookupError:
                pass  # just ended; the wait status is about to arrive
        self._outcome.stop(reason, message)
        self._kill_at = min(self._kill_at, now + grace)

    def _enforce(self, now: float) -> None:
        due = self._limits.check(now, self._program.processes)
        if due is not None:
            reason, message = due
            grace = _number(self._launch.get("grace_s"), GRACE_S)
            if reason != "timeout":
                grace = 0.0 if reason == "oom" else min(grace, LEASE_GRACE_S)
            self._stop(reason, message, grace, now)
        if now >= self._kill_at:
            self._program.kill()
            self._kill_at = now + KILL_AGAIN_S

    def _reap(self) -> bool:
        """Take the status of every child that ended; True while others are left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if pid == self._program.pid:
                self._status = status

    def _clear(self) -> None:
        """End whatever the run left behind: a subreaper has it all below itself."""
        until = time.monotonic() + CLEAR_S
        self._end_cell()
        while self._reap():
            left = tree.kill_descendants(os.getpid())
            wait_s = min(KILL_AGAIN_S, until - time.monotonic())
            if not self._wakeups.wait(wait_s):
                if time.monotonic() >= until:
                    self._outcome.note(f"{left} processes of the run could not be ended")
                    return
            self._wakeups.take()

    def _end_cell(self) -> None:
        """The kernel ends all of it; to look for processes would cost more than the whole rest."""
        if self._cell is not None:
            self._cell.end(KILL_AGAIN_S)
        if isinstance(self._program, WarmChild):
            # Its warm process could go over into the groups of the run: not for longer than this.
            cgroup.end_all(self._cgroups)

    def _drain(self) -> None:
        now = time.monotonic()
        self._log.drain(now, now + DRAIN_S)
        self._socket.drain(now, now + DRAIN_S)

    def _finish(self) -> None:
        self._drain()
        if self._status is not None:
            self._outcome.ended(self._status, cgroup.oom_kills(self._cgroups))
        refused, limit = cgroup.refused_forks(self._cgroups)
        if refused:
            self._outcome.note(f"the run reached its limit of {limit} processes and threads")
        for part, close in (("log", self._log.close), ("records", self._socket.close)):
            try:
                close()
            except OSError as error:
                self._outcome.note(f"the run's {part} may be incomplete on disk: {error.strerror}")
        sizes = {
            "log_bytes": self._log.size,
            "log_sha256": self._log.digest,
            "log_dropped_bytes": self._log.dropped,
            "records_bytes": self._socket.size,
        }
        record = self._outcome.record(sizes, self._program.used(), self._limits.peak_bytes)
        self._record.commit(record, self._lock)
        self._notifier.send(time.monotonic())


def _detach(kept: Sequence[int]) -> None:
    """Cut every tie to the executor: session, inherited descriptors, standard streams."""
    first = 3
    for last in (*sorted(kept), 1 << 16):
        os.closerange(first, last)
        first = last + 1
    try:
        os.setsid()
    except PermissionError:
        pass  # already a session's leader
    null = os.open("/dev/null", os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(null, standard)
    os.close(null)


def _tell(folder: str, error: BaseException) -> None:
    """Write this process's own trouble to shim.log."""
    import traceback  # not before it is needed: a page that is not there need not be copied

    trace = os.open(folder + "/shim.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(
        trace,
        "".join(traceback.format_exception(type(error), error, error.__traceback__)).encode(
            errors="replace"
        ),
    )
    os.close(trace)


def _integer(value: object, default: int) -> int:
    return value if isinstance(value, int) else default


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, (int, float)) else default
