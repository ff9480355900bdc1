"""The cell a run is in: namespaces that bubblewrap makes and holds, entered by a fork of ours.

The run's first process stays the supervisor's own child, so its exit status, signals and a warm
interpreter are what they are without walls; bubblewrap's first process is the init of its process
namespace, and the kernel ends everything in there with it. It holds the cell as long as this
supervisor lives. docs/adr/0030-sandbox.md says why it is done this way.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal

NEW_FILES = 0x00020000
NEW_USER = 0x10000000
NEW_PROCESSES = 0x20000000
NEW_NETWORK = 0x40000000
OTHERS = 0x04000000 | 0x08000000  # host name, IPC
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 24, 38, 47
CAPABILITY_VERSION_3 = 0x20080522
HOLDER = "/bin/cat"
"""Runs in the cell until its stdin ends: it hands one byte back when the cell is made."""
INFO = 3
NO_MORE_USERS = "/proc/sys/user/max_user_namespaces"

_libc = ctypes.CDLL(None, use_errno=True)


class CellError(Exception):
    """The cell could not be made; the text says why."""


class Cell:
    """One cell. `command` is bubblewrap and its options, without a program."""

    def __init__(self, command: list[str]) -> None:
        hold, self._gate = os.pipe2(os.O_CLOEXEC)
        self._made, made = os.pipe2(os.O_CLOEXEC)
        self._info, info = os.pipe2(os.O_CLOEXEC)
        self._words, words = os.pipe2(os.O_CLOEXEC)
        theirs = (hold, made, words, info)
        try:
            os.posix_spawn(
                command[0],
                [*command, "--info-fd", str(INFO), "--", HOLDER],
                {"PATH": "/usr/bin:/bin"},
                file_actions=[
                    # Out of the way first: one of ours may have the number of another's place.
                    *((os.POSIX_SPAWN_DUP2, end, 20 + place) for place, end in enumerate(theirs)),
                    *((os.POSIX_SPAWN_DUP2, 20 + place, place) for place in range(len(theirs))),
                    *((os.POSIX_SPAWN_CLOSE, 20 + place) for place in range(len(theirs))),
                ],
                setsigmask=[],
                setsigdef=[signal.SIGPIPE, signal.SIGINT],
            )
        except OSError as error:  # told by join: who makes a cell has nobody to tell yet
            os.write(words, f"cannot start {command[0]}: {error.strerror}".encode())
        os.write(self._gate, b"\n")
        for end in theirs:
            os.close(end)
        self._init = -1
        self._kinds = NEW_FILES | OTHERS | (NEW_NETWORK if "--unshare-net" in command else 0)

    def join(self) -> None:
        """Wait until it is made; from then on children of this process belong to its processes.

        Raises CellError.
        """
        made = os.read(self._made, 1)
        with os.fdopen(self._words, "rb") as words:
            if not made:
                raise CellError(words.read().decode(errors="replace").strip()[:500])
        with os.fdopen(self._info, "rb") as info:
            self._init = os.pidfd_open(json.loads(info.read())["child-pid"])
        os.close(self._made)
        # Only a privileged process may enter a process namespace from outside; another one becomes
        # privileged by entering the cell's users first. Root does not: it would lose what root may.
        self._user_first = os.geteuid() != 0
        if self._user_first:
            _enter(self._init, NEW_USER | NEW_PROCESSES)
            _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)  # or its files in /proc would be root's
        else:
            _enter(self._init, NEW_PROCESSES)

    def enter(self) -> None:
        """Go in for good and give up every privilege: for the child that becomes the run."""
        if not self._user_first:
            _enter(self._init, NEW_USER)
        with open(NO_MORE_USERS, "w") as limit:
            limit.write("0")
        _enter(self._init, self._kinds)
        _give_up_privileges()

    def end(self) -> None:
        """End every process in it; bubblewrap, a child of ours, ends with them."""
        if self._init >= 0:
            try:
                signal.pidfd_send_signal(self._init, signal.SIGKILL)
            except ProcessLookupError:
                pass  # a kill of everything below the supervisor took it along
            os.close(self._init)
            self._init = -1


def _enter(init: int, kinds: int) -> None:
    if _libc.setns(init, kinds) != 0:
        number = ctypes.get_errno()
        raise CellError(f"cannot enter the cell ({kinds:#x}): {os.strerror(number)}")


def _give_up_privileges() -> None:
    """No capability, now or by any later exec."""
    capability = 0
    while _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    _libc.prctl(PR_CAP_AMBIENT, 4, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    if _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.capset(
        header, (ctypes.c_uint32 * 6)()
    ):
        raise CellError(f"cannot give up privileges: {os.strerror(ctypes.get_errno())}")
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def probe(command: list[str]) -> str:
    """Make a cell and enter it, as a run would; returns why that is not possible, or ''."""
    try:
        cell = Cell(command)
        cell.join()
        read, write = os.pipe()
        if os.fork() == 0:
            try:
                cell.enter()
            except BaseException as error:
                os.write(write, str(error).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read, "rb") as words:
            said = words.read().decode()
        cell.end()
    except (CellError, OSError) as error:
        return str(error)
    return said
