"""What `stellwerk up` and `stellwerk down` do: start the supervisor and wait for it, end it."""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from stellwerk.errors import ConflictError, StellwerkError
from stellwerk_embedded import state
from stellwerk_embedded.layout import Layout
from stellwerk_embedded.logfile import open_log, tail
from stellwerk_kit.clock import SystemClock

DOWN_LIMIT_S = 60.0
CLOCK = SystemClock()
SUPERVISOR = "supervisor"
PR_SET_PDEATHSIG = 1

Progress = Callable[[str, float], None]


@dataclass
class Started:
    """A platform that is ready. ``process`` is its supervisor."""

    process: subprocess.Popen[bytes]
    seconds: float


def start(
    layout: Layout, base_port: int | None, progress: Progress, *, foreground: bool = False
) -> Started:
    """Prepare the folder, start its supervisor, return when all is ready.

    ``progress`` hears each process that is ready, and after how many seconds. In the foreground
    the supervisor ends with this process. Raises ConflictError (running already, port in use),
    UserError (folder, binaries) and StellwerkError with what failed and its last log lines.
    """
    from stellwerk_embedded import prepare  # noqa: PLC0415 - `down` and `status` stay light

    began = CLOCK.monotonic()
    prepare.folder(layout)
    lock = state.take_lock(layout)
    if lock is None:
        raise ConflictError(_running_already(layout), code="platform.running")
    try:
        prepare.everything(layout, base_port)
        process, answers = _spawn(layout, lock, foreground=foreground)
    finally:
        os.close(lock)  # the supervisor has its own copy
    try:
        with answers:
            failure = _listen(layout, answers, progress)
    except BaseException:  # Ctrl-C: a platform that nobody waits for does not stay half started
        process.terminate()
        process.wait()
        raise
    if failure is not None:
        process.wait()
        raise StellwerkError(f"the platform did not start.\n{failure}", code="platform.failed")
    return Started(process, CLOCK.monotonic() - began)


def stop(layout: Layout) -> bool:
    """End the supervisor and wait for it; False when none runs. Raises StellwerkError."""
    deadline = CLOCK.monotonic() + DOWN_LIMIT_S
    told: int | None = None
    while state.is_held(layout):
        content = state.read(layout) or {}
        pid = content.get("pid")
        if pid and pid != told:  # while it starts it has not told its number yet
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            told = pid
        if CLOCK.monotonic() > deadline:
            raise StellwerkError(
                f"process {told or '?'} did not end within {DOWN_LIMIT_S:g} s; "
                f"see {layout.log(SUPERVISOR)}",
                code="platform.stays",
            )
        time.sleep(0.05)
    return told is not None


def _running_already(layout: Layout) -> str:
    content = state.read(layout)
    who = f" (process {content['pid']})" if content else ""
    return (
        f"a platform runs already with the data folder {layout.home}{who}. "
        "See it: stellwerk status. Stop it: stellwerk down. "
        "For a second one name another folder and ports: stellwerk up --data DIR --port 0"
    )


def _spawn(layout: Layout, lock: int, *, foreground: bool) -> tuple[subprocess.Popen[bytes], Any]:
    """The supervisor, holding nothing of ours but the lock and the pipe it reports through."""
    read, write = os.pipe()
    command = [sys.executable, "-m", "stellwerk_embedded.supervisor", str(layout.home)]
    try:
        with open_log(layout.log(SUPERVISOR)) as log:
            process = subprocess.Popen(
                [*command, str(lock), str(write)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                pass_fds=(lock, write),
                start_new_session=True,
                preexec_fn=_end_with_parent if foreground else None,  # noqa: PLW1509 - one thread
            )
    finally:
        os.close(write)
    return process, os.fdopen(read)


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _listen(layout: Layout, answers: Iterator[str], progress: Progress) -> str | None:
    """Follow the start; returns why it failed, or None."""
    for line in answers:
        said = json.loads(line)
        if "failure" in said:
            failure: str | None = said["failure"]
            return failure
        progress(said["ready"], said["seconds"])
    log = layout.log(SUPERVISOR)
    return "\n".join([f"the supervisor ended (log: {log})", *tail(log)])
