"""The run's own control groups: entered, read at the end, and left empty."""

from __future__ import annotations

import os

from stellwerk_shim import files, signals

ROUNDS = 8
BATCH = 256
"""Processes that are held open at once."""


def doors(folders: list[str]) -> list[int]:
    """The files through which processes enter, opened. Raises OSError.

    Version 1 moves the caller's own thread at once; moving processes waits for the kernel, 15 ms.
    """
    found = []
    for folder in folders:
        for name in ("tasks", "cgroup.procs"):
            if os.path.exists(os.path.join(folder, name)):
                found.append(os.open(os.path.join(folder, name), os.O_WRONLY | os.O_CLOEXEC))
                break
    return found


def enter(doors: list[int]) -> None:
    """Move this process, which has one thread, there, and close them. Raises OSError."""
    for door in doors:
        os.write(door, b"0")
        os.close(door)


def limits_memory(folders: list[str]) -> bool:
    """Whether one of them holds the run's memory within its limit."""
    return any(os.path.exists(os.path.join(folder, "memory.stat")) for folder in folders)


def oom_kills(folders: list[str]) -> int:
    """How many of the run's processes the kernel ended because the group's memory was used up."""
    return sum(
        _counter(folder, name, "oom_kill")
        for folder in folders
        for name in ("memory.events", "memory.oom_control")  # version 2, version 1
    )


def refused_forks(folders: list[str]) -> tuple[int, str]:
    """How many forks the limit of processes refused, and the limit."""
    for folder in folders:
        refused = _counter(folder, "pids.events", "max")
        if refused:
            return refused, _read(folder, "pids.max").strip()
    return 0, ""


def end_all(folders: list[str]) -> None:
    """Kill whatever is in them: after the end of a run, what its warm process has moved there."""
    for folder in folders:
        if _kill_at_once(folder):
            continue
        for _ in range(ROUNDS):  # it may start others meanwhile
            members = _members(folder)
            if not members:
                break
            for at in range(0, len(members), BATCH):
                _kill(folder, members[at : at + BATCH])


def _kill_at_once(folder: str) -> bool:
    """Have the kernel do it; version 2 can."""
    try:
        door = os.open(os.path.join(folder, "cgroup.kill"), os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        os.write(door, b"1")
        return True
    except OSError:
        return False
    finally:
        os.close(door)


def _kill(folder: str, pids: list[int]) -> None:
    opened = []
    for pid in pids:
        try:
            opened.append((pid, os.pidfd_open(pid)))
        except OSError:
            continue  # it has ended
    still = set(_members(folder))  # or is another by now
    for pid, pidfd in opened:
        if pid in still:
            try:
                signals.send(pidfd, signals.KILL)
            except OSError:
                pass
        os.close(pidfd)


def _members(folder: str) -> list[int]:
    return [int(pid) for pid in _read(folder, "cgroup.procs").split()]


def _counter(folder: str, file: str, name: str) -> int:
    for line in _read(folder, file).splitlines():
        key, _, value = line.partition(" ")
        if key == name:
            return int(value)
    return 0


def _read(folder: str, file: str) -> str:
    try:
        return files.read(os.path.join(folder, file)).decode()
    except OSError:
        return ""
