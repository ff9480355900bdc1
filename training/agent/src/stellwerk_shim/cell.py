"""The cell a run is in: namespaces of its own, made by its first process from a view that is ready.

The view is a mount namespace that bubblewrap made once for all runs of an environment; nothing runs
in it, the executor holds it open and hands it over. Each run has a copy of it that cannot be
written, and lays its own folders on that. The run's first process stays the supervisor's own child,
so its exit status and signals are what they are without walls.

A warm process is in a cell as well. Its runs are forks of it and need theirs: the supervisor lays
it out from outside, below the users of the warm one, and hands it over to be entered.
docs/adr/0030-sandbox.md says why it is done this way.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import socket
import struct

from stellwerk_shim import kernel, messages, signals

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

INIT = "/bin/cat"
"""First process of a cell: waits for the end of its stdin, and with it the kernel ends the rest."""
OWN = kernel.IPC | kernel.HOST_NAME
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
PROBE_S = 5.0
REPORT = 3
"""Which of the descriptors for a run in a warm process is what failures are written to."""
MADE = b"made"
NUMBER = struct.Struct("i")
"""Whom the first process of a warm process's cell shall reap: its number there."""
FOLDER, KIND = 0o040000, 0o170000
SET_FLAGS, UP = 0x8914, 0x41  # of a network interface


class CellError(Exception):
    """The cell could not be made; the text says why."""


class Cell:
    """One cell.

    ``wanted``: `root`, the folder of attempts; `mounts`, each a source, its place and whether the
    run may write there, first of all /tmp; `below_tmp`, what of the view that would hide;
    `network`, whether it is the machine's; `others`, whether it is for a warm process, which has
    runs in cells below its own. ``view``: descriptors of the view's mounts and of the users that
    own them.
    """

    def __init__(self, wanted: dict[str, object], view: Sequence[int]) -> None:
        self._wanted, self._view = wanted, view
        self.users = self._above = self._processes = -1
        self._first = self._hold = self.gate = -1

    def make(self) -> None:
        """From now on children of this process belong to its processes. Raises CellError."""
        try:
            self._begin()
            self._hold, self.gate = os.pipe2(os.O_CLOEXEC)
            if self._wanted.get("others"):
                self._make_users_first()
            else:
                kernel.leave(kernel.PROCESSES)
                self._first = self._start_init()
            os.close(self._hold)
        except OSError as error:
            raise CellError(str(error.strerror)) from error

    def make_below(self, users: int, processes: int, first: int, gate: int) -> None:
        """Its processes were made in a warm process's cell, as descriptors and their first's pidfd.

        ``users``: those of that cell. ``gate``: what its first process waits for. Raises CellError.
        """
        self._above, self._processes, self._first, self.gate = users, processes, first, gate
        try:
            self._begin()
        except OSError as error:
            raise CellError(str(error.strerror)) from error

    def enter(self) -> None:
        """Go in for good and give up every privilege: for the child that becomes the run.

        A warm process keeps the right to make cells below its own. Raises CellError.
        """
        try:
            self._enter()
            kernel.give_up_privileges(but_administration=bool(self._wanted.get("others")))
        except OSError as error:
            raise CellError(str(error.strerror)) from error

    def lay_out(self, given: list[int], run: socket.socket) -> int:
        """Have a child of this process go in, and tell the warm process's fork what to enter.

        That is sent after ``given``, its kinds in the message. Returns the child: it ends by itself
        and has said why on its ``given`` report where its status is not 0.

        The warm process may look into whatever is below its users, and this child has files of the
        machine: it is not among the processes that the warm one sees.
        """
        kinds = {"user": kernel.USERS, "mnt": kernel.FILES}
        kinds |= {"ipc": kernel.IPC, "uts": kernel.HOST_NAME}
        if not self._wanted["network"]:
            kinds["net"] = kernel.NETWORK
        pid = os.fork()
        if pid == 0:
            try:
                outside = _outside()
                self._enter()
                opened = [_open_own(name, outside) for name in kinds]
                messages.send(run, json.dumps(list(kinds.values())).encode(), [*given, *opened])
                os._exit(0)
            except OSError as error:
                os.write(given[REPORT], str(error.strerror).encode())
            finally:
                os._exit(1)
        return pid

    def end(self, seconds: float) -> None:
        """End every process in it and wait for that, so long at most."""
        if self.gate >= 0:
            os.close(self.gate)
            self.gate = -1
        if self._first >= 0:
            try:  # a warm process may have made it another than it says
                signals.send(self._first, signals.KILL)
            except OSError:
                pass  # it was not in time
            gone = select.poll()
            gone.register(self._first, select.POLLIN)
            gone.poll(max(0.0, seconds) * 1000)

    def _begin(self) -> None:
        if len(self._view) != 2:
            raise CellError("its view of the machine was not handed over")
        _, users = self._view
        # Root enters the users of a cell last: it would lose what root may. Who is not root
        # has no right to namespaces but as the owner of the view's users.
        if os.geteuid() != 0:
            kernel.enter(users, kernel.USERS)
            kernel.be_ones_own()
        os.close(users)

    def _make_users_first(self) -> None:
        """Processes that belong to users of the cell: there others can be made below them."""

        def made() -> list[int]:
            outside = _outside()
            _become_own_users(outside, kernel.PROCESSES, others=True)
            names = ("user", "pid_for_children")
            return [self._start_first(), *(_open_own(name, outside) for name in names)]

        self._first, self.users, inside = _from_child(made)
        kernel.enter(inside, kernel.PROCESSES)
        os.close(inside)

    def _start_init(self) -> int:
        """Start the first process of a run's cell; returns a pidfd.

        A program and no fork: after a fork this process would copy again every page it has used.
        """
        signals.handle(signals.CHLD, signals.IGNORE)  # it inherits that, and need not reap orphans
        try:
            actions = [(os.POSIX_SPAWN_DUP2, self._hold, 0)]
            return os.pidfd_open(os.posix_spawn(INIT, [INIT], {}, file_actions=actions))
        finally:
            signals.handle(signals.CHLD, signals.DEFAULT)

    def _start_first(self) -> int:
        """Start the first process of a warm process's cell; returns a pidfd.

        One of its users, with files of this machine, so nobody may look into it. How orphaned runs
        ended is kept for their supervisors: it reaps whom they name, through the gate.
        """
        pid = os.fork()
        if pid == 0:
            try:
                kernel.be_nobodys()
                os.dup2(self._hold, 0)
                os.closerange(1, 1 << 16)
                signals.handle(signals.INT, signals.DEFAULT)  # else a run could send it
                while words := os.read(0, 1024 * NUMBER.size):
                    for (each,) in NUMBER.iter_unpack(words):
                        _reap(each)
            finally:
                os._exit(0)
        return os.pidfd_open(pid)

    def _enter(self) -> None:
        if self.gate >= 0:
            os.close(self.gate)  # only the supervisor's keeps the cell
        view, self._view = self._view[0], ()
        if os.geteuid() != 0:
            kernel.leave(kernel.FILES)  # the machine's mounts, as ones that we may copy
        outside = _outside()
        mounts: list[tuple[str, str, bool]] = self._wanted["mounts"]  # type: ignore[assignment]
        trees = _copies(mounts)
        kernel.enter(view, kernel.FILES)
        os.close(view)
        kernel.leave(kernel.FILES)
        kernel.fix("/")
        kept: list[str] = self._wanted["below_tmp"]  # type: ignore[assignment]
        below_tmp = _copies([(place, place, False) for place in kept])
        _lay([*trees[:1], *below_tmp])
        attempts = str(self._wanted["root"])
        os.makedirs(attempts, exist_ok=True)
        kernel.mount("tmpfs", attempts, WALLED, "mode=755")
        _lay(trees[1:])
        if self._processes < 0:
            _mount_systems()
        else:  # whose processes /proc shows is decided by who mounts it
            kernel.enter(self._processes, kernel.PROCESSES)
            _from_child(_mount_systems)
        if os.geteuid() == 0:
            os.setgroups([])  # nobody else may give up groups that were given to him
        own_network = not self._wanted["network"]
        own = OWN | (kernel.NETWORK if own_network else 0)
        if self._above >= 0:
            # Mounts once more, so that they are in the hands of these users, who take nothing off.
            kernel.enter(self._above, kernel.USERS)
            _become_own_users(outside, own | kernel.FILES)
        else:
            if self.users >= 0:
                kernel.enter(self.users, kernel.USERS)
            kernel.leave(own)
        if own_network:
            _bring_up("lo")
        if max(self._above, self.users) < 0:
            _become_own_users(outside)
        os.close(outside)


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


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        pass  # its parent is not gone yet


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


def _become_own_users(proc: int, kinds: int = 0, *, others: bool = False) -> None:
    """Users of its own, with nobody but us among them and no more below them but for ``others``.

    Namespaces of these ``kinds`` are made with them and are theirs.
    """
    user, group = os.geteuid(), os.getegid()
    kernel.leave(kernel.USERS | kinds)
    kernel.be_ones_own()
    files = [
        ("self/setgroups", "deny"),
        ("self/uid_map", f"{user} {user} 1"),
        ("self/gid_map", f"{group} {group} 1"),
    ]
    if not others:
        files.append(("sys/user/max_user_namespaces", "0"))
    for name, text in files:
        file = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=proc)
        os.write(file, text.encode())
        os.close(file)


def _outside() -> int:
    """The machine's /proc, which is of use where there is none yet."""
    return os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def _open_own(name: str, proc: int) -> int:
    return os.open(f"self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=proc)


def _from_child(make: Callable[[], list[int] | None]) -> list[int]:
    """Have a child of this process ``make`` something: the descriptors it gives. Raises OSError."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid == 0:
        try:
            ours.close()
            try:
                messages.send(theirs, MADE, make() or ())
            except OSError as error:
                theirs.send((error.strerror or "").encode())
        finally:
            os._exit(0)
    theirs.close()
    with ours:
        text, descriptors, _ = messages.receive(ours)
    os.waitpid(pid, 0)
    if text != MADE:
        raise OSError(0, text.decode() or "a process that was to make it ended")
    return descriptors


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
    cell.end(PROBE_S)
    return said or ("" if status == 0 else f"the first process of a cell ended with {status}")
