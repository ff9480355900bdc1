"""Where the user's own Python loads modules from besides its installation: ``pip install -e``.

`site` reads lines of ``*.pth`` files; setuptools' finders of editable installs name folders in a
dictionary ``MAPPING``. Neither is executed here.
"""

import ast
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

FINDER = ("__editable___", "_finder.py")
"""How the name of a finder begins and ends."""
File = tuple[Path, int, int]
"""Name, time in nanoseconds, size in bytes."""


def site_folders(python: Path) -> tuple[Path, ...]:
    """Folders and modules that the installation of ``python`` names, as far as they are there."""
    found: dict[Path, None] = {}
    lib = python.parent.parent / "lib"
    for name in _names(lib, "python3"):
        site = lib / name / "site-packages"
        named = (path for path in _named(_files(site)) if not path.is_relative_to(site))
        found |= dict.fromkeys(path for path in named if path.exists())
    return tuple(found)


def _files(site: Path) -> tuple[File, ...]:
    """Those that may name folders, as they are now."""
    found = []
    for names in (_names(site, ends=".pth"), _names(site, *FINDER)):
        for name in names:
            with suppress(OSError):
                status = os.stat(f"{site}/{name}")  # noqa: PTH116 - before every run: half the cost
                found.append((site / name, status.st_mtime_ns, status.st_size))
    return tuple(found)


def _names(folder: Path, begins: str = "", ends: str = "") -> list[str]:
    with suppress(OSError):
        found = os.listdir(folder)  # noqa: PTH208 - a third of its cost
        return sorted(each for each in found if each.startswith(begins) and each.endswith(ends))
    return []


@lru_cache(maxsize=64)
def _named(files: tuple[File, ...]) -> tuple[Path, ...]:
    """What is in them, read again when one of them is another."""
    texts = [text for file, _, _ in files for text in _texts(file)]
    return tuple(Path(text) for text in texts if text.startswith("/") and text.strip("/"))


def _texts(file: Path) -> Iterator[str]:
    if file.suffix == ".pth":
        yield from (line.strip() for line in _text(file).splitlines())
    else:
        yield from _mappings(file)


def _mappings(file: Path) -> Iterator[str]:
    try:
        body = ast.parse(_text(file)).body
    except (SyntaxError, ValueError):
        return
    for statement in body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.value, ast.Dict):
            for value in statement.value.values:
                if isinstance(value, ast.Constant) and isinstance(value.value, str):
                    yield value.value


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""
