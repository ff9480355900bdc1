"""Armed faults for chaos tests; without ``STELLWERK_FAILPOINTS`` every point is a no-op.

``STELLWERK_FAILPOINTS="history.before_archive=kill@2;scheduler.after_commit=raise"``: action
``kill`` (SIGKILL itself), ``raise`` or ``stop`` (SIGSTOP), at the n-th passage (default 1st). A
point that fired is not armed again by a restart when ``STELLWERK_FAILPOINTS_DIR`` holds its
marker file.
"""

import os
import signal
from pathlib import Path


class FailpointError(RuntimeError):
    """Raised by a point armed with ``raise``."""


def _parse(text: str) -> dict[str, tuple[str, int]]:
    armed: dict[str, tuple[str, int]] = {}
    for item in filter(None, (part.strip() for part in text.split(";"))):
        name, _, action = item.partition("=")
        verb, _, count = action.partition("@")
        if verb not in {"kill", "raise", "stop"} or not (count or "1").isdecimal():
            raise ValueError(f"STELLWERK_FAILPOINTS: {item!r} is not name=kill|raise|stop[@n]")
        armed[name] = (verb, int(count or 1))
    return armed


_armed = _parse(os.environ.get("STELLWERK_FAILPOINTS", ""))
_passed: dict[str, int] = {}


def failpoint(name: str) -> None:
    """A place where a test may end, stop or break this process."""
    if not _armed or name not in _armed:
        return
    verb, count = _armed[name]
    _passed[name] = _passed.get(name, 0) + 1
    if _passed[name] != count or not _first_ever(name):
        return
    if verb == "raise":
        raise FailpointError(name)
    os.kill(os.getpid(), signal.SIGKILL if verb == "kill" else signal.SIGSTOP)


def _first_ever(name: str) -> bool:
    folder = os.environ.get("STELLWERK_FAILPOINTS_DIR")
    if folder is None:
        return True
    try:
        Path(folder, name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True
