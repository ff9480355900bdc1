"""The run's own control groups: entered, read at the end, and left empty."""

from __future__ import annotations

import os

from stellwerk_shim import files, signals

ROUNDS = 8


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
        for _ in range(ROUNDS):  # it may start others meanwhile
            members = _members(folder)
            if not members:
                break
            for pid in members:
                try:
                    pidfd = os.pidfd_open(pid)
                except OSError:
                    continue  # it has ended
                if pid in _members(folder):  # and is not another by now
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
