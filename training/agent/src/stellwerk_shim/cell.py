"""The cell a run is in: namespaces of its own, made by its first process from a view that is ready.

The view is a mount namespace that bubblewrap made once for all runs of an environment; nothing runs
in it, the executor holds it open and hands it over. Each run has a copy of it that cannot be
written, and lays its own folders on that. The run's first process stays the supervisor's own child,
so its exit status, signals and a warm interpreter are what they are without walls.
docs/adr/0030-sandbox.md says why it is done this way.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
import struct

from stellwerk_shim import kernel, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

INIT = "/bin/cat"
"""First process of a cell: waits for the end of its stdin, and with it the kernel ends the rest."""
OWN = kernel.FILES | kernel.IPC | kernel.HOST_NAME
WALLED = kernel.NO_SUID | kernel.NO_DEVICES
MACHINES = tuple(
    f"/proc/{name}"
    for name in ("sys", "sysrq-trigger", "irq", "bus", "fs", "acpi", "scsi", "mtrr", "driver")
)
"""How the machine is set: files that are root's, and a run of root's has the same number."""
PAGES = ("kpageflags", "kpagecount", "kpagecgroup", "pagetypeinfo")
KERNELS = tuple(f"/proc/{name}" for name in (*PAGES, "slabinfo", "vmallocinfo", "timer_list"))
"""What of the kernel only root may read: what it holds for others. Nobody reads it here."""
RPC = "/proc/net/rpc"
FOLDER, KIND = 0o040000, 0o170000
SET_FLAGS, UP = 0x8914, 0x41  # of a network interface


class CellError(Exception):
    """The cell could not be made; the text says why."""


class Cell:
    """One cell.

    ``wanted``: `root`, the folder of attempts; `mounts`, each a source, its place and whether the
    run may write there, first of all /tmp; `below_tmp`, what of the view that would hide;
    `network`, whether it is the machine's. ``view``: descriptors of the view's
    mounts and of the users that own them.
    """

    def __init__(self, wanted: dict[str, object], view: Sequence[int]) -> None:
        self._wanted, self._view = wanted, view
        self._gate = -1

    def make(self) -> None:
        """From now on children of this process belong to its processes. Raises CellError."""
        if len(self._view) != 2:
            raise CellError("its view of the machine was not handed over")
        try:
            _, users = self._view
            # Root enters the users of a cell last: it would lose what root may. Who is not root
            # has no right to namespaces but as the owner of the view's users.
            if os.geteuid() != 0:
                kernel.enter(users, kernel.USERS)
                kernel.be_ones_own()
            os.close(users)
            kernel.leave(kernel.PROCESSES)
            self._start_init()
        except OSError as error:
            raise CellError(str(error.strerror)) from error

    def enter(self) -> None:
        """Go in for good and give up every privilege: for the child that becomes the run.

        Raises CellError.
        """
        try:
            self._enter()
        except OSError as error:
            raise CellError(str(error.strerror)) from error

    def _enter(self) -> None:
        os.close(self._gate)  # only the supervisor's keeps the cell
        view, self._view = self._view[0], ()
        if os.geteuid() != 0:
            kernel.leave(kernel.FILES)  # the machine's mounts, as ones that we may copy
        outside = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        mounts: list[tuple[str, str, bool]] = self._wanted["mounts"]  # type: ignore[assignment]
        trees = _copies(mounts)
        kernel.enter(view, kernel.FILES)
        os.close(view)
        own_network = not self._wanted["network"]
        kernel.leave(OWN | (kernel.NETWORK if own_network else 0))
        kernel.fix("/")
        kept: list[str] = self._wanted["below_tmp"]  # type: ignore[assignment]
        below_tmp = _copies([(place, place, False) for place in kept])
        _lay([*trees[:1], *below_tmp])
        attempts = str(self._wanted["root"])
        os.makedirs(attempts, exist_ok=True)
        kernel.mount("tmpfs", attempts, WALLED, "mode=755")
        _lay(trees[1:])
        _mount_systems()
        if own_network:
            _bring_up("lo")
        if os.geteuid() == 0:
            os.setgroups([])  # nobody else may give up groups that were given to him
        _become_own_users(outside)
        os.close(outside)
        kernel.give_up_privileges()
        kernel.be_ones_own()

    def end(self) -> None:
        """End every process in it; its first one, a child of ours, ends with them."""
        if self._gate >= 0:
            os.close(self._gate)
            self._gate = -1

    def _start_init(self) -> None:
        """A program, not a fork: this process may have all of a framework in its memory."""
        hold, self._gate = os.pipe2(os.O_CLOEXEC)
        signals.handle(signals.CHLD, signals.IGNORE)  # it inherits that, and need not reap orphans
        try:
            os.posix_spawn(INIT, [INIT], {}, file_actions=[(os.POSIX_SPAWN_DUP2, hold, 0)])
        finally:
            signals.handle(signals.CHLD, signals.DEFAULT)
            os.close(hold)


def _copies(mounts: Iterable[tuple[str, str, bool]]) -> list[tuple[int, str]]:
    """A copy of each source that is there, and its place."""
    trees = []
    for source, place, writable in mounts:
        try:
            tree = kernel.copy(source, WALLED | (0 if writable else kernel.READ_ONLY))
        except FileNotFoundError:
            continue  # a machine need not have a resolv.conf
        trees.append((tree, place))
    return trees


def _lay(trees: Iterable[tuple[int, str]]) -> None:
    for tree, place in trees:
        _make_place(tree, place)
        kernel.put(tree, place)


def _make_place(tree: int, place: str) -> None:
    if os.path.exists(place):
        return
    if os.fstat(tree).st_mode & KIND == FOLDER:
        os.makedirs(place)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.close(os.open(place, os.O_CREAT | os.O_WRONLY, 0o644))


def _mount_systems() -> None:
    """What no two runs share: processes, shared memory and, where root makes them, terminals."""
    kernel.mount("proc", "/proc", WALLED | kernel.NO_EXEC)
    _lay(_copies([(place, place, False) for place in MACHINES]))
    if os.geteuid() == 0:  # nobody else could read them anyway
        _lay(_copies([("/dev/null", each, False) for each in KERNELS if os.path.exists(each)]))
        if os.path.isdir(RPC):
            kernel.mount("tmpfs", RPC, WALLED | kernel.READ_ONLY)
    kernel.mount("tmpfs", "/dev/shm", WALLED, "mode=1777")
    if os.path.isdir("/dev/pts"):
        options = "newinstance,ptmxmode=0666,mode=620"
        kernel.mount("devpts", "/dev/pts", kernel.NO_SUID | kernel.NO_EXEC, options)


def _become_own_users(proc: int) -> None:
    """Users of its own, with nobody but us among them and no more below them."""
    user, group = os.geteuid(), os.getegid()
    kernel.leave(kernel.USERS)
    kernel.be_ones_own()
    for name, text in (
        ("self/setgroups", "deny"),
        ("self/uid_map", f"{user} {user} 1"),
        ("self/gid_map", f"{group} {group} 1"),
        ("sys/user/max_user_namespaces", "0"),
    ):
        file = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        os.write(file, text.encode())
        os.close(file)


def _bring_up(interface: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, SET_FLAGS, struct.pack("16sH14x", interface.encode(), UP))


def probe(wanted: str, view: Sequence[int]) -> str:
    """Make a cell, given in JSON, and enter it; returns why a run could not do that, or ''."""
    cell = Cell(json.loads(wanted), view)
    read, write = os.pipe()
    try:
        cell.make()
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                cell.enter()
                status = 0
            except BaseException as error:
                os.write(write, str(error).encode())
            finally:
                os._exit(status)
    except (CellError, OSError) as error:
        return str(error)
    os.close(write)
    with os.fdopen(read, "rb") as words:
        said = words.read().decode()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    cell.end()
    return said or ("" if status == 0 else f"the first process of a cell ended with {status}")
