"""Where the user's own Python loads modules from besides its installation: ``pip install -e``.

`site` reads lines of ``*.pth`` files; setuptools' finders of editable installs name folders in a
dictionary ``MAPPING``. Neither is executed here.
"""

import ast
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

FINDERS = "__editable___*_finder.py"
File = tuple[Path, int, int]
"""Name, time in nanoseconds, size in bytes."""


def site_folders(python: Path) -> tuple[Path, ...]:
    """Folders and modules that the installation of ``python`` names, as far as they are there."""
    found: dict[Path, None] = {}
    for site in sorted((python.parent.parent / "lib").glob("python3*/site-packages")):
        named = (path for path in _named(_files(site)) if not path.is_relative_to(site))
        found |= dict.fromkeys(path for path in named if path.exists())
    return tuple(found)


def _files(site: Path) -> tuple[File, ...]:
    """Those that may name folders, as they are now."""
    found = []
    for file in sorted(site.glob("*.pth")) + sorted(site.glob(FINDERS)):
        with suppress(OSError):
            status = file.stat()
            found.append((file, status.st_mtime_ns, status.st_size))
    return tuple(found)


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
