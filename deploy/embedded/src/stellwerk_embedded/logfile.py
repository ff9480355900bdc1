"""Log files of bounded size: the processes append, the supervisor sets full ones aside."""

import shutil
from pathlib import Path
from typing import IO

LIMIT = 10 * 1024 * 1024
KEEP = 2


def open_log(path: Path) -> IO[bytes]:
    """Open for a process to append to, readable by its owner only."""
    path.touch(mode=0o600)
    return path.open("ab", buffering=0)


def rotate(path: Path, limit: int = LIMIT) -> bool:
    """Set a log of more than ``limit`` bytes aside (``.1``, then ``.2``); whether it was.

    The process keeps its file open, so its content is copied and the file emptied. Appending
    writers then go on at its beginning.
    """
    try:
        if path.stat().st_size <= limit:
            return False
    except OSError:
        return False
    for number in range(KEEP, 1, -1):
        older = path.with_name(f"{path.name}.{number - 1}")
        if older.exists():
            older.replace(path.with_name(f"{path.name}.{number}"))
    with path.open("r+b") as source, path.with_name(f"{path.name}.1").open("wb") as target:
        shutil.copyfileobj(source, target, 1024 * 1024)
        source.truncate(0)
    return True


def tail(path: Path, lines: int = 5) -> list[str]:
    """The last lines, shortened; empty where there is no file."""
    try:
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 8192))
            found = stream.read().decode(errors="replace").splitlines()
    except OSError:
        return []
    return [line[:300] for line in found[-lines:] if line.strip()]
