"""What a layer has to hold on top of another environment's image, so that only news move.

Environments of one cache share their packages' files by hard links: what has the same inode is the
same. Compiled modules are made anew in each environment; with the same source they mean the same.
"""

import filecmp
import os
from collections.abc import Iterator
from pathlib import Path

CACHE_FOLDER = "__pycache__"
Found = dict[str, os.stat_result]


def changed(folder: Path, parent: Path) -> list[str] | None:
    """Relative paths that ``folder`` has and ``parent`` has not, or not so; sorted.

    None when ``parent`` holds what ``folder`` does not: a layer cannot be built on it.
    """
    new, old = dict(_files(folder)), dict(_files(parent))
    if old.keys() - new.keys():
        return None
    found = [
        path for path in new if not _compiled(path) and not _same(path, folder, parent, new, old)
    ]
    fresh = set(found)
    found += [
        path for path in new if _compiled(path) and (path not in old or _source(path) in fresh)
    ]
    return sorted(found)


def all_paths(folder: Path) -> list[str]:
    """Everything below ``folder``, itself first, parents before children."""
    return [".", *with_folders([str(path.relative_to(folder)) for path in folder.rglob("*")])]


def with_folders(paths: list[str]) -> list[str]:
    """The paths with all folders above them, parents first."""
    folders = {str(above) for path in paths for above in Path(path).parents if str(above) != "."}
    return sorted(folders | set(paths))


def _files(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    pending = [""]
    while pending:
        inside = pending.pop()
        with os.scandir(folder / inside) as entries:
            for entry in entries:
                path = os.path.join(inside, entry.name)  # noqa: PTH118 - thousands of them
                if entry.is_dir(follow_symlinks=False):
                    pending.append(path)
                else:
                    yield path, entry.stat(follow_symlinks=False)


def _same(path: str, folder: Path, parent: Path, new: Found, old: Found) -> bool:
    if path not in old:
        return False
    mine, theirs = new[path], old[path]
    if (mine.st_ino, mine.st_dev) == (theirs.st_ino, theirs.st_dev):
        return True
    if (mine.st_mode, mine.st_size) != (theirs.st_mode, theirs.st_size):
        return False
    if (folder / path).is_symlink():
        return (folder / path).readlink() == (parent / path).readlink()
    return filecmp.cmp(folder / path, parent / path, shallow=False)


def _compiled(path: str) -> bool:
    return path.endswith(".pyc") and Path(path).parent.name == CACHE_FOLDER


def _source(path: str) -> str:
    """``a/__pycache__/m.cpython-311.pyc`` comes from ``a/m.py``."""
    compiled = Path(path)
    return str(compiled.parent.parent / f"{compiled.name.partition('.')[0]}.py")
