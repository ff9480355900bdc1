"""A warm interpreter's file, out of reach of its runs where root is the one who runs them.

A fork keeps the file of its program as the kernel opened it: whatever walls a run enters later,
`/proc/self/exe` is that file on the mount it was executed from, and root may change its mode
through it. So a warm one is executed from mounts of its own, none of which can be written, and goes
back to the machine's before it loads anything. Only root may go back, so only root does this.
"""

from __future__ import annotations

import os

from stellwerk_shim import kernel

TYPE_CHECKING = False  # typing itself would cost milliseconds at every start
if TYPE_CHECKING:
    from typing import NoReturn

MACHINE = 9
"""Descriptor of the machine's mounts while the interpreter starts."""
MOUNTS = "/proc/self/ns/mnt"


def become(argv: list[str]) -> NoReturn:
    """Become `argv`, whose program must then call `back`. Raises OSError."""
    os.dup2(os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC), MACHINE)
    kernel.leave(kernel.FILES)
    kernel.fix("/")
    with open("/proc/self/environ", "rb") as given:  # our own start may have set a locale
        pairs = (pair.partition(b"=") for pair in given.read().split(b"\0") if pair)
        env = {name: value for name, _, value in pairs}
    os.execve(argv[0], argv, env)


def back() -> int:
    """Have the machine's mounts again. Raises OSError.

    Returns a descriptor of those that the interpreter's file is on: while it is open somewhere the
    file has its name.
    """
    own = os.open(MOUNTS, os.O_RDONLY | os.O_CLOEXEC)
    kernel.enter(MACHINE, kernel.FILES)
    os.close(MACHINE)
    return own
