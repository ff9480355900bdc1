"""Start of the run's first process: own session, given environment, errors told in words."""

from __future__ import annotations

import ctypes
import errno
import os
import resource
import signal

from stellwerk_shim import cgroup

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

    from stellwerk_shim.cell import Cell
    from stellwerk_shim.forked import Interpreter

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)


class LaunchError(Exception):
    """The first process could not be started; the text is for the user."""


def become_subreaper() -> None:
    """Make this process the parent of every orphan among its descendants.

    Raises OSError where the kernel refuses.
    """
    if _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def start(
    launch: dict[str, object],
    output: int,
    interpreter: Interpreter | None = None,
    cell: Cell | None = None,
) -> int:
    """Start `launch["argv"]` with stdout and stderr on `output`, in `cell`; return its process id.

    Returns once the program image is loaded, or `interpreter` is about to run the script. Raises
    LaunchError if it cannot be.
    """
    report_read, report_write = os.pipe2(os.O_CLOEXEC)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        _become(launch, output, report_write, parent, interpreter, cell)
    os.close(report_write)
    with os.fdopen(report_read, "rb") as report:
        failure = report.read().decode(errors="replace")
    if failure:
        os.waitpid(pid, 0)
        raise LaunchError(failure)
    return pid


def _become(
    launch: dict[str, object],
    output: int,
    report: int,
    parent: int,
    interpreter: Interpreter | None,
    cell: Cell | None,
) -> NoReturn:
    """Turn this fork into the run's program, or report why not and end. Never returns."""
    step = "prepare the process"
    argv = [str(part) for part in launch["argv"]]  # type: ignore[attr-defined]
    env: dict[str, str] = launch["env"]  # type: ignore[assignment]
    try:
        os.setsid()
        _redirect(output)
        _limit(launch)
        cgroup.enter(launch.get("cgroups") or [])  # type: ignore[arg-type]
        if cell is not None:
            step = "enter its sandbox"
            cell.enter()
        # Only the first process is covered: a cell ends with this supervisor, what else is left
        # the executor sweeps. After entering, which makes the kernel forget it.
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if cell is None and os.getppid() != parent:
            os._exit(127)
        step = f"enter the working folder '{launch['cwd']}'"
        os.chdir(str(launch["cwd"]))
        step = f"start '{argv[0]}'"
        if interpreter is not None:
            report = _keep_only(report)
            interpreter.run(argv, env, report)
        os.execvpe(argv[0], argv, env)
    except BaseException as error:
        os.write(report, f"cannot {step}: {_words(error, argv[0])}".encode()[:2000])
    os._exit(127)


def _keep_only(report: int) -> int:
    """Close what exec would close: all but the standard streams and `report`, which becomes 3."""
    os.dup2(report, 3, inheritable=False)
    os.closerange(4, 1 << 16)
    return 3


def _redirect(output: int) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)


def _limit(launch: dict[str, object]) -> None:
    """Limits, umask and signal dispositions as a login shell would hand them on."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    nofile = launch.get("nofile")
    if isinstance(nofile, int):
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = nofile if hard == resource.RLIM_INFINITY else min(nofile, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, wanted))
    umask = launch.get("umask")
    if isinstance(umask, int):
        os.umask(umask)
    for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _words(error: BaseException, program: str) -> str:
    if isinstance(error, OSError) and error.errno == errno.ENOENT and os.path.exists(program):
        return "the file is there, but the interpreter named in its first line is not"
    return str(error.strerror) if isinstance(error, OSError) else f"{type(error).__name__}: {error}"
