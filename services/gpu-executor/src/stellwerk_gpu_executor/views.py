"""Views of this machine for runs: each made once by bubblewrap, then held open by this process.

A view is a mount namespace. No process is left in it: it lives as long as somebody has it open,
this process until the machine or the environment is another, each run as long as it goes on.
"""

import asyncio
import json
import os
import select
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, cast

from stellwerk_gpu_executor.launching import WallsError
from stellwerk_gpu_executor.sandbox import OWN_USERS, Base, View, below_tmp
from stellwerk_kit.tasks import TaskOwner

MAKE_S = 20.0
MOST = 64
"""Views kept; the one not asked for longest leaves."""
HOLDER = "/bin/cat"
"""Runs in a view while it is opened; says that it is made by handing one byte back."""
MOUNTS = "/proc/self/mountinfo"


class ViewError(WallsError):
    """A view cannot be made; the text says why."""


class OpenView:
    """Descriptors of a view's mounts and of their users, closed when nobody refers to it.

    ``below_tmp``: see the function.
    """

    def __init__(self, descriptors: Sequence[int], below_tmp: Sequence[str]) -> None:
        self._descriptors = tuple(descriptors)
        self.below_tmp = below_tmp

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a supervisor needs of it."""
        return self._descriptors

    def __del__(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


def make(command: Sequence[str], users: OpenView | None = None) -> OpenView:
    """Have bubblewrap make a view. Blocks for some 20 milliseconds. Raises ViewError.

    ``users``: a view whose users it belongs to as well.
    """
    info, theirs = os.pipe2(os.O_CLOEXEC)
    passed = (theirs,) if users is None else (theirs, users.descriptors[1])
    if users is not None:
        at = command.index(OWN_USERS)
        command = [*command[:at], "--userns", str(users.descriptors[1]), *command[at + 1 :]]
    with os.fdopen(info, "rb") as told, os.fdopen(theirs, "wb") as info_end:
        try:
            process = subprocess.Popen(
                [*command, "--info-fd", str(theirs), "--", HOLDER],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env={"PATH": "/usr/bin:/bin"},
                pass_fds=passed,
                bufsize=0,
            )
        except OSError as error:
            raise ViewError(f"cannot start {command[0]}: {error.strerror}") from error
        with process:
            try:
                info_end.close()
                _wait_until_made(process)
                return OpenView(_open(json.loads(told.read())["child-pid"]), below_tmp(command))
            except OSError as error:
                raise ViewError(f"its namespaces cannot be opened: {error.strerror}") from error
            finally:
                process.kill()  # with its parent the process in the view ends


def _wait_until_made(process: subprocess.Popen[bytes]) -> None:
    pipes = (process.stdin, process.stdout, process.stderr)
    give, taken, words = (cast("IO[bytes]", pipe) for pipe in pipes)
    with suppress(BrokenPipeError):  # it has ended already, and said why
        give.write(b"\n")
    poll = select.poll()  # `select` knows no descriptor above 1023
    poll.register(taken, select.POLLIN)
    if not poll.poll(MAKE_S * 1000):
        raise ViewError(f"bubblewrap was not ready within {MAKE_S:.0f} s")
    if not taken.read(1):
        said = words.read().decode(errors="replace").strip()
        raise ViewError(said[:500] or "bubblewrap ended without a word")


def _open(pid: int) -> tuple[int, int]:
    mounts = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return mounts, os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        os.close(mounts)
        raise


@dataclass
class _Kept:
    marks: tuple[object, ...]
    making: "asyncio.Task[OpenView]"


class Machine:
    """Notices when something is mounted or unmounted here outside of one folder."""

    def __init__(self, besides: str) -> None:
        self._besides = f" {besides}/".encode()
        self._file = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLPRI)
        self._lines = self._read()

    def changed(self) -> bool:
        """Whether it did since the last call."""
        if not self._poll.poll(0):
            return False
        before, self._lines = self._lines, self._read()
        return before != self._lines

    def close(self) -> None:
        """Look no more."""
        os.close(self._file)

    def _read(self) -> list[bytes]:
        os.lseek(self._file, 0, os.SEEK_SET)
        text = b""
        while more := os.read(self._file, 1 << 16):
            text += more
        return [line for line in text.splitlines() if self._besides not in line]


@dataclass
class Views:
    """The views of one executor, made when a run first needs them."""

    view: View
    machine: Machine
    _tasks: TaskOwner = field(default_factory=TaskOwner)
    _kept: dict[Base, _Kept] = field(default_factory=dict)
    _users: OpenView | None = None
    """The first view where we are not root: all belong to its users, so that who has a right to one
    has it to another. A run in a warm process needs its own view and that one's."""

    async def of(self, base: Base) -> OpenView:
        """The view of runs like that, as the machine is now. Raises ViewError."""
        if self.machine.changed():
            self._kept.clear()
        marks = self.view.marks(base)
        kept = self._kept.pop(base, None)
        if kept is None or kept.marks != marks or _failed(kept.making):
            making = self._tasks.spawn_quiet(asyncio.to_thread(self._make, base), "view")
            kept = _Kept(marks, making)
        self._kept[base] = kept  # the last one asked for is the last one to leave
        while len(self._kept) > MOST:
            self._kept.pop(next(iter(self._kept)))
        return await asyncio.shield(kept.making)

    async def close(self) -> None:
        """Let go of all; runs keep theirs."""
        await self._tasks.close()
        self._kept.clear()
        self._users = None
        self.machine.close()

    def _make(self, base: Base) -> OpenView:
        made = make(self.view.command(base), self._users)
        if os.geteuid() != 0 and self._users is None:
            self._users = made
        return made


def _failed(making: "asyncio.Task[OpenView]") -> bool:
    return making.done() and (making.cancelled() or making.exception() is not None)
