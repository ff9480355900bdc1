"""System calls on mounts and namespaces that Python has no function for.

The mount calls are those of Linux 5.12; their numbers are the same on every architecture.
"""

from __future__ import annotations

import ctypes
import errno
import os

FILES, HOST_NAME, IPC = 0x00020000, 0x04000000, 0x08000000
USERS, PROCESSES, NETWORK = 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEVICES, NO_EXEC = 1, 2, 4, 8
"""Attributes of a mount, with the same numbers as MS_ flags and as MOUNT_ATTR_ ones."""
CAP_SYS_ADMIN, RAISE_AMBIENT, CLEAR_AMBIENT = 21, 2, 4
PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 4, 24, 38, 47

_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442
_KEYCTL = 250 if os.uname().machine == "x86_64" else 219
_HERE, _AT_EMPTY_PATH, _AT_RECURSIVE, _CLONE = -100, 0x1000, 0x8000, 1
_PRIVATE, _SLAVE = 1 << 18, 1 << 19
_CAPABILITY_VERSION_3 = 0x20080522

_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: int, kind: int) -> None:
    """Go into the namespace that a descriptor of its file means. Raises OSError."""
    _check(_libc.setns(namespace, kind), f"enter a namespace ({kind:#x})")


def leave(kinds: int) -> None:
    """Have new namespaces of these kinds; of processes: the children have. Raises OSError."""
    _check(_libc.unshare(kinds), f"make namespaces ({kinds:#x})")


def copy(path: str, attributes: int) -> int:
    """A descriptor of a copy of all that is mounted at and below ``path``, mounted nowhere.

    What is mounted or unmounted in the copy stays there. Raises OSError.
    """
    flags = _CLONE | os.O_CLOEXEC | _AT_RECURSIVE
    tree = _call(f"show {path}", _OPEN_TREE, _HERE, os.fsencode(path), flags)
    try:
        _set(f"show {path}", tree, attributes, _SLAVE)
    except OSError:
        os.close(tree)
        raise
    return tree


def put(tree: int, place: str) -> None:
    """Mount what `copy` gave, and close it. Raises OSError."""
    try:
        _call(f"mount {place}", _MOVE_MOUNT, tree, b"", _HERE, os.fsencode(place), 4)
    finally:
        os.close(tree)


def fix(path: str) -> None:
    """Nothing mounted at or below ``path`` can be written, or changes by what is mounted outside.

    Raises OSError.
    """
    place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        _set(f"fix {path}", place, READ_ONLY, _PRIVATE)
    finally:
        os.close(place)


def mount(kind: str, place: str, attributes: int, options: str = "") -> None:
    """Mount a new file system. Raises OSError."""
    arguments = (os.fsencode(place), kind.encode(), ctypes.c_ulong(attributes), options.encode())
    _check(_libc.mount(kind.encode(), *arguments), f"mount {place}")


def give_up_privileges(*, but_administration: bool = False) -> None:
    """No capability, now or by any later exec, and no keys of who started us. Raises OSError.

    With ``but_administration`` there is still CAP_SYS_ADMIN, over what its own users have made.
    """
    capability = 0
    kept = CAP_SYS_ADMIN if but_administration else -1
    while capability == kept or _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    _libc.prctl(PR_CAP_AMBIENT, CLEAR_AMBIENT, 0, 0, 0)
    _libc.syscall(_KEYCTL, 1, None)  # a session keyring of its own; a kernel without keys has none
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _check(_libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "give up privileges")
    bits = 1 << kept if but_administration else 0  # effective, permitted, inheritable
    _check(_libc.capset(header, (ctypes.c_uint32 * 6)(bits, bits, bits)), "give up privileges")
    if but_administration:  # by exec as well, whoever it is
        _check(_libc.prctl(PR_CAP_AMBIENT, RAISE_AMBIENT, kept, 0, 0), "keep a privilege")
    be_ones_own()


def be_ones_own() -> None:
    """Let this process's files in /proc be its user's again, after a change of users."""
    _libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)


def be_nobodys() -> None:
    """Let nobody but the machine's root look into this process."""
    _libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def _set(what: str, tree: int, attributes: int, propagation: int) -> None:
    wanted = (ctypes.c_uint64 * 4)(attributes, 0, propagation, 0)
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    _call(what, _MOUNT_SETATTR, tree, b"", flags, wanted, ctypes.c_size_t(32))


def _call(what: str, number: int, *arguments: object) -> int:
    return _check(_libc.syscall(ctypes.c_long(number), *arguments), what)


def _check(result: int, what: str) -> int:
    if result >= 0:
        return result
    number = ctypes.get_errno()
    why = "the kernel is older than 5.12" if number == errno.ENOSYS else os.strerror(number)
    raise OSError(number, f"cannot {what}: {why}")
