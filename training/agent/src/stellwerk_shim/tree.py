"""What /proc says about processes: descendants, memory, start time, kernel OOM kills."""

from __future__ import annotations

import os
import signal

_PAGE = os.sysconf("SC_PAGE_SIZE")


def start_ticks(pid: int) -> int:
    """Clock ticks between boot and the start of `pid`: with the id, a process's identity.

    Raises OSError if there is no such process.
    """
    return int(_stat(pid)[19])


def boot_id() -> str:
    """Return the kernel's id of this boot: process ids mean nothing beyond it."""
    with open("/proc/sys/kernel/random/boot_id") as source:
        return source.read().strip()


def oom_kills() -> int:
    """Return how many processes the kernel killed for memory since boot, 0 if unknown."""
    try:
        with open("/proc/vmstat", "rb") as source:
            for line in source:
                if line.startswith(b"oom_kill "):
                    return int(line.split()[1])
    except OSError:
        pass
    return 0


def descendants(root: int) -> list[int]:
    """Return the ids of all live processes below `root`, parents before children."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                fields = _stat(int(name))
            except OSError:
                continue
            if fields[0] != b"Z":
                children.setdefault(int(fields[1]), []).append(int(name))
    found: list[int] = []
    queue = [root]
    while queue:
        below = children.get(queue.pop(), [])
        found += below
        queue += below
    return found


def kill_descendants(root: int) -> int:
    """Send SIGKILL to everything below `root`; return how many processes were there.

    All are stopped first, so that none can start another while its siblings die.
    """
    found = descendants(root)
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in found:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
    return len(found)


def memory_bytes(root: int, limit: int) -> int:
    """Return the memory of everything below `root`.

    Resident sizes count a page shared by n processes n times; only if their sum exceeds `limit`
    are the proportional sizes read, which are exact and slow.
    """
    pids = descendants(root)
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= limit else sum(_proportional(pid) for pid in pids)


def _resident(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as source:
            return int(source.read().split()[1]) * _PAGE
    except OSError:
        return 0


def _proportional(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as source:
            for line in source:
                if line.startswith(b"Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        return _resident(pid)
    return 0


def _stat(pid: int) -> list[bytes]:
    """Fields of /proc/<pid>/stat after the name: state, parent, group, session, ..."""
    with open(f"/proc/{pid}/stat", "rb") as source:
        return source.read().rpartition(b")")[2].split()
