"""What starting an attempt is: what is asked for, and what launchers and handles promise."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from stellwerk_gpu_executor.attempt_dir import AttemptDir, ExitRecord
from stellwerk_gpu_executor.forkserver import WarmServer

NOT_STARTED = "its warm process did not start it"
"""Why an attempt began cold whose warm process failed."""


class WallsError(Exception):
    """What a run is to be walled in with cannot be made; the text says why."""


class NotWarmError(Exception):
    """A run that must begin warm was not begun by its warm process; nothing of it is left."""


class AttemptRunningError(Exception):
    """The attempt's folder cannot be removed: its supervisor is alive."""


class OpenView(Protocol):
    """A view of this machine, held open as long as it is referred to."""

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a supervisor needs of it."""
        ...


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One attempt to start. Sizes in bytes, times in seconds; None means no limit.

    `env` is the complete environment apart from the STELLWERK_ variables, which the launcher adds.
    The last group is for launchers that wall a run in: what it may use and see besides its folder.
    `lease` is a deadline on the monotonic clock; `log_overflow` says what happens at
    `log_limit_bytes`: the run waits at its next print, or the rest of its output is thrown away.
    """

    folder: Path
    run_id: str
    attempt: int
    argv: list[str]
    cwd: Path
    env: dict[str, str] = field(repr=False)
    grace_s: float = 30.0
    lease: float | None = None
    max_duration_s: float | None = None
    memory_limit_bytes: int | None = None
    nofile: int | None = 65536
    log_limit_bytes: int = 1 << 30
    log_overflow: Literal["block", "drop"] = "block"
    umask: int = 0o022
    cpus: float | None = None
    gpus: int = 0
    gpu_ids: tuple[str, ...] = ()
    """Those it has, by the driver's names; the launcher gives them."""
    image: str | None = None
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    python: Path | None = None
    """The environment's interpreter: what it is made of is seen, whatever the command is."""
    sources: tuple[Path, ...] = ()
    """Where a Python of this machine loads modules from; the platform's folders stay hidden."""
    warm: WarmServer | None = None
    """A warm process of the run's environment: the script begins in a fork of it."""
    must_be_warm: bool = False
    cold_reason: str | None = None
    cell: Mapping[str, object] | None = None
    """What is its own within the walls it runs in, see `stellwerk_shim.cell`; None: no walls."""
    view: OpenView | None = None
    """What it has in common with others in there."""
    cgroups: tuple[str, ...] = ()
    """Control groups that its processes belong to."""

    def launch_file(self, attempt: AttemptDir, notify: Path) -> dict[str, object]:
        """Content of launch.json; docs/run-protocol.md lists it."""
        own = {
            "STELLWERK_RUN_ID": self.run_id,
            "STELLWERK_ATTEMPT": str(self.attempt),
            "STELLWERK_RUN_SOCKET": str(attempt.socket),
            "STELLWERK_UPLOADS_DIR": str(attempt.uploads),
        }
        fields = {name: getattr(self, name) for name in self.__slots__}
        for name in (
            "folder",
            "cpus",
            "gpus",
            "image",
            "readable",
            "writable",
            "python",
            "sources",
            "view",
        ):
            del fields[name]
        return {
            **fields,
            "warm": self.warm is not None,
            "cwd": str(self.cwd),
            "env": self.env | own,
            "notify_path": str(notify),
            "notify_key": key(self.run_id, self.attempt),
        }


class Handle(Protocol):
    """A started attempt."""

    attempt: AttemptDir
    activity: asyncio.Event
    """Set whenever std.log, records.jsonl or the state changed; the follower clears it."""

    async def wait(self) -> ExitRecord:
        """Wait for the end; returns at once if it has come."""
        ...

    def alive(self) -> bool:
        """Whether the attempt has not ended yet."""
        ...

    def stop(self, reason: str, grace_s: float | None = None, message: str | None = None) -> None:
        """Ask for the end: SIGTERM, after the grace SIGKILL. The first reason stands."""
        ...

    def renew(self, deadline_mono: float | None) -> None:
        """Let the run live until that monotonic time."""
        ...

    def exit_record(self) -> ExitRecord | None:
        """Return how it ended, None while it has not."""
        ...


class Launcher(Protocol):
    """Something that runs attempts."""

    async def start(self, request: LaunchRequest) -> Handle:
        """Start the attempt; a program that cannot be started is an exit record, no exception.

        Raises NotWarmError for one that must begin warm and did not, WallsError.
        """
        ...

    async def adopt(self, attempt: AttemptDir) -> Handle | None:
        """Take over what an earlier executor started; None if nothing ever ran there."""
        ...

    async def cleanup(self, attempt: AttemptDir) -> None:
        """Remove the attempt's processes and folder; AttemptRunningError if it is alive."""
        ...

    def unseen(self, folder: Path) -> str:
        """Why attempts would not see what is mounted below ``folder``, or ''."""
        ...


class Walls(Protocol):
    """What keeps a plain process apart from this machine, and within its limits."""

    async def around(self, request: LaunchRequest) -> LaunchRequest:
        """The same request with its cell and control groups. Raises WallsError."""
        ...

    def clear(self, groups: Sequence[str]) -> None:
        """The attempt that had these control groups is gone."""
        ...


def key(run_id: str, attempt: int) -> str:
    """What wakes the follower of an attempt."""
    return f"{run_id}/{attempt}"
