"""Processes by identity: a process id alone may have been reused, with its start time it cannot.

Everything works for processes that are not children of this one.
"""

import os
import select
import signal
import time
from functools import cache
from pathlib import Path

KILL_TIMEOUT_S = 10.0


def open_process(pid: int, start_ticks: int) -> int | None:
    """Return a pidfd for exactly that process; None if it is gone. The caller closes it."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return None
    # Checked after opening: from here on the descriptor means one process, whatever the id does.
    if _start_ticks(pid) == start_ticks and not has_ended(descriptor):
        return descriptor
    os.close(descriptor)
    return None


def has_ended(pidfd: int) -> bool:
    """Whether the process behind `pidfd` has ended."""
    poll = select.poll()  # `select` knows no descriptor above 1023
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


def start_ticks(pid: int) -> int:
    """When a process started, in clock ticks since boot; 0 if it is gone."""
    return _start_ticks(pid) or 0


@cache
def boot_id() -> str:
    """Return the kernel's id of this boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def kill_marked(marker: str, session: int | None, session_start_ticks: int) -> list[int]:
    """End every process whose environment holds `marker` or that is in `session`.

    Blocks until they are gone, at most 10 seconds; returns the ids that would not go.
    `session_start_ticks` is the start time of the session's first process: if another process
    has that id today, the session is over and is left alone.
    """
    until = time.monotonic() + KILL_TIMEOUT_S
    if session is not None and _start_ticks(session) not in {None, session_start_ticks}:
        session = None
    while True:
        found = _matching(marker, session)
        if not found or time.monotonic() > until:
            for descriptor in found.values():
                os.close(descriptor)
            return list(found)
        # All are stopped first, so that none can start another while its siblings die.
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for descriptor in found.values():
                _send(descriptor, number)
        _await_end(list(found.values()), until)


def _matching(marker: str, session: int | None) -> dict[int, int]:
    """Map process id to pidfd for the processes meant."""
    found: dict[int, int] = {}
    needle = marker.encode()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        pid = int(entry.name)
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        if _belongs(pid, needle, session) and not has_ended(descriptor):
            found[pid] = descriptor
        else:
            os.close(descriptor)
    return found


def _belongs(pid: int, needle: bytes, session: int | None) -> bool:
    fields = _stat(pid)
    if fields is None or fields[0] == b"Z":
        return False
    if session is not None and int(fields[3]) == session:
        return True
    try:
        return needle in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False


def _await_end(pidfds: list[int], until: float) -> None:
    poll = select.poll()
    for descriptor in pidfds:
        poll.register(descriptor, select.POLLIN)
    waiting = len(pidfds)
    while waiting and (left := until - time.monotonic()) > 0:
        for descriptor, _ in poll.poll(left * 1000):
            poll.unregister(descriptor)
            waiting -= 1
    for descriptor in pidfds:
        os.close(descriptor)


def _send(pidfd: int, number: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return


def _start_ticks(pid: int) -> int | None:
    fields = _stat(pid)
    return None if fields is None else int(fields[19])


def _stat(pid: int) -> list[bytes] | None:
    """Fields of /proc/<pid>/stat after the name: state, parent, group, session, ..."""
    try:
        return Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return None
