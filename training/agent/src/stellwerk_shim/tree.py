"""What /proc says about processes: descendants, memory, start time, kernel OOM kills."""

from __future__ import annotations

import os

from stellwerk_shim import signals
from stellwerk_shim.files import read

_PAGE, _TICKS = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_CLK_TCK")
BOOT_ID = read("/proc/sys/kernel/random/boot_id").decode().strip()
"""The kernel's id of this boot: process ids mean nothing beyond it."""


def start_ticks(pid: int) -> int:
    """Clock ticks between boot and the start of `pid`: with the id, a process's identity.

    Raises OSError if there is no such process.
    """
    return int(_stat(pid)[19])


def numbers(pidfd: int) -> list[int]:
    """Return how a process is called, here and in each namespace down to its own.

    Empty for one that was reaped, and for a descriptor that means no process. Raises OSError.
    """
    words = read(f"/proc/self/fdinfo/{pidfd}").partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
    found = list(map(int, words))
    return found if found and found[0] > 0 else []


def ended(pid: int, started: int) -> tuple[int, float]:
    """Return wait status and CPU seconds of a process that has ended and was not reaped.

    ``started``: its `start_ticks`. Raises OSError if there is no such process any more.
    """
    fields = _stat(pid)
    if fields[0] != b"Z" or int(fields[19]) != started:
        raise OSError(f"process {pid} has not ended")
    return int(fields[49]), sum(map(int, fields[11:15])) / _TICKS


def oom_kills() -> int:
    """Return how many processes the kernel killed for memory since boot, 0 if unknown."""
    try:
        return int(read("/proc/vmstat").rpartition(b"\noom_kill ")[2].partition(b"\n")[0])
    except (OSError, ValueError):
        return 0


def descendants(*roots: int) -> list[int]:
    """Return the ids of all live processes below `roots`, parents before children."""
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
    queue = list(roots)
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
    for number in (signals.STOP, signals.KILL):
        for pid in found:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                continue
    return len(found)


def memory_bytes(pids: list[int], limit: int) -> int:
    """Return the memory of these processes.

    Resident sizes count a page shared by n processes n times; only if their sum exceeds `limit`
    are the proportional sizes read, which are exact and slow.
    """
    resident = sum(_resident(pid) for pid in pids)
    return resident if resident <= limit else sum(_proportional(pid) for pid in pids)


def _resident(pid: int) -> int:
    try:
        return int(read(f"/proc/{pid}/statm").split()[1]) * _PAGE
    except OSError:
        return 0


def _proportional(pid: int) -> int:
    try:
        rollup = read(f"/proc/{pid}/smaps_rollup").partition(b"\nPss:")[2]
    except OSError:
        return _resident(pid)
    return int(rollup.split(None, 1)[0]) * 1024 if rollup else 0


def _stat(pid: int) -> list[bytes]:
    """Fields of /proc/<pid>/stat after the name: state, parent, group, session, ..."""
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].split()
