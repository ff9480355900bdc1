"""One outside step as a process: its output line by line, silence noticed, nothing left behind.

The step is a session of its own; whatever ends the wait (a limit, a cancellation, an error) kills
that whole process group before it returns.
"""

import asyncio
import os
import signal
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

_CHUNK_BYTES = 65_536
_LONGEST_LINE = 4000
_KEPT_LINES = 500
_END_SECONDS = 10.0


class StepTimeoutError(Exception):
    """The step took longer than its limit and was killed."""


@dataclass(frozen=True)
class Step:
    """A command. ``reads`` names the stream that is followed; ``both`` joins the two.

    ``limit_s`` ends it; ``silence_s`` is how long it may say nothing before that is noticed.
    ``pid_file`` gets the process's identity, for :func:`kill_recorded` after a crash of ours.
    """

    argv: Sequence[str]
    environ: Mapping[str, str]
    folder: Path
    limit_s: float
    silence_s: float
    pid_file: Path
    reads: Literal["stderr", "both"] = "stderr"


@dataclass(frozen=True)
class Ended:
    """How a step ended: exit status (negative: the signal) and the end of its output."""

    returncode: int
    output: str


async def run_step(
    step: Step,
    on_line: Callable[[str], Awaitable[None]],
    on_silence: Callable[[], Awaitable[None]],
) -> Ended:
    """Run the step to its end. Raises StepTimeoutError, OSError where it cannot be started."""
    pipe, discard = asyncio.subprocess.PIPE, asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(
        *step.argv,
        stdin=discard,
        stdout=pipe if step.reads == "both" else discard,
        stderr=asyncio.subprocess.STDOUT if step.reads == "both" else pipe,
        env=dict(step.environ),
        cwd=step.folder,
        start_new_session=True,
    )
    try:
        _record(process.pid, step.pid_file)
        stream = process.stdout if step.reads == "both" else process.stderr
        assert stream is not None  # noqa: S101 - asked for above
        async with asyncio.timeout(step.limit_s):
            output = await _follow(stream, step.silence_s, on_line, on_silence)
            return Ended(await process.wait(), output)
    except BaseException as error:
        _kill_group(process.pid)
        with suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _END_SECONDS)
        if isinstance(error, TimeoutError):
            raise StepTimeoutError from error
        raise


def kill_recorded(pid_file: Path) -> None:
    """Kill the step that ``pid_file`` names, if that very process still lives."""
    try:
        pid, created = pid_file.read_text().split()
        if psutil.Process(int(pid)).create_time() == float(created):
            _kill_group(int(pid))
    except (OSError, ValueError, psutil.Error):
        return


def _record(pid: int, pid_file: Path) -> None:
    with suppress(psutil.NoSuchProcess):  # it may have ended already
        pid_file.write_text(f"{pid} {psutil.Process(pid).create_time()}")


async def _follow(
    stream: asyncio.StreamReader,
    silence_s: float,
    on_line: Callable[[str], Awaitable[None]],
    on_silence: Callable[[], Awaitable[None]],
) -> str:
    kept: deque[str] = deque(maxlen=_KEPT_LINES)
    pending = b""
    while True:
        try:
            chunk = await asyncio.wait_for(stream.read(_CHUNK_BYTES), silence_s)
        except TimeoutError:
            await on_silence()
            continue
        *lines, pending = (pending + chunk).split(b"\n")
        if not chunk or len(pending) > _LONGEST_LINE:
            lines, pending = [*lines, pending], b""
        for raw in lines:
            line = raw.decode(errors="replace").rstrip()[:_LONGEST_LINE]
            if line:
                kept.append(line)
                await on_line(line)
        if not chunk:
            return "\n".join(kept)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
