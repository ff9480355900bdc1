"""What the supervisor tells others: a lock while it lives, and a file about its processes."""

import contextlib
import fcntl
import json
import os
from typing import Any

from stellwerk_embedded.layout import Layout, write_private


def take_lock(layout: Layout) -> int | None:
    """The descriptor that holds the folder until its last copy is closed; None if it is taken."""
    descriptor = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def is_held(layout: Layout) -> bool:
    """Whether a supervisor lives with this folder."""
    try:
        with layout.lock_file.open("r+") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def write(layout: Layout, content: dict[str, Any]) -> None:
    """Tell how things are."""
    write_private(layout.state_file, json.dumps(content, indent=1) + "\n")


def read(layout: Layout) -> dict[str, Any] | None:
    """What a living supervisor tells; None when there is none."""
    if not is_held(layout):
        return None
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(layout.state_file.read_text())
        if isinstance(content, dict):
            return content
    return None
