"""Start of the run's first process: own session, given environment, errors told in words."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import resource
import select
import time

from stellwerk_shim import cgroup, signals, tree
from stellwerk_shim.cell import CellError

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from stellwerk_shim.cell import Cell
    from stellwerk_shim.forked import Interpreter

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
KEPT_REPORT, KEPT_GATE = 3, 4
HIGH = 10
OPEN = b"\n"
REPORT_BYTES = 1 << 16
RESET = (signals.PIPE, signals.XFSZ, signals.INT, signals.HUP)
"""What an interpreter handles for itself."""

_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The first process could not be started; the text is for the user."""


def become_subreaper() -> None:
    """Make this process the parent of every orphan among its descendants.

    Raises OSError where the kernel refuses.
    """
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


class Child:
    """The run's first process. It prepares itself beside its supervisor and waits at a gate.

    Forked before the supervisor has touched much: whatever it touched would be copied twice.
    """

    def __init__(
        self,
        launch: dict[str, object],
        output: int,
        cell: Cell | None = None,
        interpreter: Interpreter | None = None,
    ) -> None:
        self.pid = self.start_ticks = 0
        self._refused = ""
        gate, self._gate = os.pipe2(os.O_CLOEXEC)
        self._report, report = os.pipe2(os.O_CLOEXEC)
        parent = os.getpid()
        try:
            if cell is not None:
                cell.make()
            self.pid = os.fork()
        except CellError as error:
            self._refused = f"cannot make its sandbox: {error}"
        except OSError as error:
            self._refused = str(error)
        else:
            if self.pid == 0:
                groups: list[str] = launch.get("cgroups") or []  # type: ignore[assignment]
                walls = None if cell is None else cell.enter
                doors = cgroup.doors(groups)
                become(launch, output, (gate, report), doors, parent, walls, interpreter)
        os.close(gate)
        os.close(report)

    def used(self) -> tuple[float, int]:
        """CPU seconds of the run and the size of its largest process in bytes, at its end."""
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024

    def processes(self) -> list[int]:
        """All processes of the run, as long as its first goes on."""
        return tree.descendants(os.getpid())

    def ask_to_end(self) -> None:
        """SIGTERM to the run's group. Raises ProcessLookupError where there is none any more."""
        os.killpg(self.pid, signals.TERM)

    def kill(self) -> None:
        """End all processes of the run."""
        tree.kill_descendants(os.getpid())

    def begin(self) -> None:
        """Open the gate for `launch["argv"]`, with stdout and stderr on `output`, in `cell`.

        Returns once the program image is loaded, or the interpreter is about to run the script.
        Raises LaunchError if it cannot be.
        """
        failure = self._refused or pass_gate(self._gate, self._report, None)
        if failure:
            if self.pid:
                os.waitpid(self.pid, 0)
            raise LaunchError(failure)
        self.start_ticks = tree.start_ticks(self.pid)


def pass_gate(gate: int, report: int, seconds: float | None) -> str:
    """Let a process that waits at a gate go on; returns why it could not, or ''.

    Raises TimeoutError where it has not said all within ``seconds``, ValueError where it says more
    than anybody needs to.
    """
    failure = b""
    until = None if seconds is None else time.monotonic() + seconds
    more = select.poll()
    more.register(report, select.POLLIN)
    try:
        os.write(gate, OPEN)
    except BrokenPipeError:
        pass  # it has ended already, and said why
    while True:
        left = None if until is None else max(0.0, until - time.monotonic()) * 1000
        if not more.poll(left):
            raise TimeoutError("it did not begin in time")
        words = os.read(report, 4096)
        if not words:
            break
        failure += words
        if len(failure) > REPORT_BYTES:
            raise ValueError("it does not begin, and does not say why")
    os.close(gate)
    os.close(report)
    return failure.decode(errors="replace")


def become(
    launch: dict[str, object],
    output: int,
    pipes: tuple[int, int],
    groups: list[int],
    parent: int | None,
    walls: Callable[[], None] | None,
    interpreter: Interpreter | None = None,
) -> NoReturn:
    """Turn this fork into the run's program, or report why not and end. Never returns.

    ``groups``: what `cgroup.doors` opened. ``parent``: the process that it ends with, if it does.
    ``walls`` goes behind the run's.
    """
    step = "prepare the process"
    argv = [str(part) for part in launch["argv"]]  # type: ignore[attr-defined]
    env: dict[str, str] = launch["env"]  # type: ignore[assignment]
    gate, report = pipes
    try:
        signals.handle(signals.CHLD, signals.DEFAULT)
        signals.mask(signals.SETMASK, ())
        os.setsid()
        _redirect(output)
        _limit(launch)
        cgroup.enter(groups)
        if walls is not None:
            step = "enter its sandbox"
            walls()
        read_nothing()
        if parent is not None:
            # Only the first process is covered: a cell ends with this supervisor, what else is left
            # the executor sweeps. After entering, which makes the kernel forget it.
            _libc.prctl(PR_SET_PDEATHSIG, signals.KILL, 0, 0, 0)
            if walls is None and os.getppid() != parent:
                os._exit(127)
        step = f"enter the working folder '{launch['cwd']}'"
        os.chdir(str(launch["cwd"]))
        step = f"start '{argv[0]}'"
        if interpreter is not None:
            _keep_only(report, gate)
            gate, report = KEPT_GATE, KEPT_REPORT
            interpreter.run(argv, env, _enter, stay=bool(launch.get("must_be_warm")))
        for number in RESET:
            signals.handle(number, signals.DEFAULT)
        _pass(gate)
        os.execvpe(argv[0], argv, env)
    except BaseException as error:
        os.write(report, f"cannot {step}: {_words(error, argv[0])}".encode()[:2000])
    os._exit(127)


def _enter() -> None:
    """For an interpreter that is ready to run its script: wait for the gate, drop the pipes."""
    _pass(KEPT_GATE)
    os.close(KEPT_GATE)
    os.close(KEPT_REPORT)


def _pass(gate: int) -> None:
    """Wait until the supervisor opens the gate; end with a supervisor that never does."""
    if os.read(gate, 1) != OPEN:
        os._exit(127)


def _keep_only(report: int, gate: int) -> None:
    """Close what exec would close: all but the standard streams and the two pipes."""
    moved = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, HIGH) for each in (report, gate)]
    os.dup2(moved[0], KEPT_REPORT, inheritable=False)
    os.dup2(moved[1], KEPT_GATE, inheritable=False)
    os.closerange(KEPT_GATE + 1, 1 << 16)


def _redirect(output: int) -> None:
    os.dup2(output, 1)
    os.dup2(output, 2)


def read_nothing() -> None:
    """Opened within the walls: through a descriptor the machine's own could be changed."""
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)


def _limit(launch: dict[str, object]) -> None:
    """Limits and umask as a login shell would hand them on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nofile = launch.get("nofile")
    if isinstance(nofile, int):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = nofile if hard == resource.RLIM_INFINITY else min(nofile, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    umask = launch.get("umask")
    if isinstance(umask, int):
        os.umask(umask)


def _words(error: BaseException, program: str) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOENT and os.path.exists(program):
        return "the file is there, but the interpreter named in its first line is not"
    return str(error.strerror) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
