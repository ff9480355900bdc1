"""Removes the folder of an attempt, cheaply; nothing of its run is left that could race us."""

import os
import shutil
from pathlib import Path


def remove(folder: Path) -> None:
    """Remove the folder, folders that the run made read-only included."""
    try:
        _remove_all(os.fspath(folder))
    except PermissionError:
        for parent, names, _ in os.walk(folder):
            for name in names:
                path = Path(parent, name)
                if not path.is_symlink():
                    path.chmod(0o700)
        shutil.rmtree(folder)


def remove_small(folder: str, most: int = 32) -> bool:
    """Remove a folder of at most so many files and folders; False if there is (still) more.

    That takes less than waking a thread for it. More, or what resists, is `remove`'s work.
    """
    found: list[tuple[str, bool]] = []
    try:
        left = [folder]
        while left:
            path = left.pop()
            found.append((path, True))
            with os.scandir(path) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        left.append(entry.path)
                    else:
                        found.append((entry.path, False))
            if len(found) + len(left) > most:
                return False
        for path, is_folder in reversed(found):
            (os.rmdir if is_folder else os.unlink)(path)
    except OSError:
        return False
    return True


def _remove_all(folder: str) -> None:
    """``shutil.rmtree`` at a third of its cost: nothing of the run is left that could race us."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                _remove_all(entry.path)
            else:
                os.unlink(entry.path)  # noqa: PTH108 - a Path for each would double the cost
    os.rmdir(folder)  # noqa: PTH106
