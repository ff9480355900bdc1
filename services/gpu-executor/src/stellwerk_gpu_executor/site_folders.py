"""Where the user's own Python loads modules from besides its installation: ``pip install -e``.

`site` reads lines of ``*.pth`` files; setuptools' finders of editable installs name folders in a
dictionary ``MAPPING``. Neither is executed here.
"""

import ast
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

FINDERS = "__editable___*_finder.py"


def site_folders(python: Path) -> tuple[Path, ...]:
    """Folders and modules that the installation of ``python`` names, as far as they are there."""
    found: dict[Path, None] = {}
    for site in sorted((python.parent.parent / "lib").glob("python3*/site-packages")):
        found |= dict.fromkeys(_named(site, site.stat().st_mtime_ns))
    return tuple(found)


@lru_cache(maxsize=64)
def _named(site: Path, _changed_ns: int) -> tuple[Path, ...]:
    """Those of one site-packages folder, read again when a file came or went."""
    named = [*_lines(site), *_mappings(site)]
    paths = (Path(text) for text in named if text.startswith("/") and text.strip("/"))
    return tuple(path for path in paths if path.exists() and not path.is_relative_to(site))


def _lines(site: Path) -> Iterator[str]:
    for file in sorted(site.glob("*.pth")):
        yield from (line.strip() for line in _text(file).splitlines())


def _mappings(site: Path) -> Iterator[str]:
    for file in sorted(site.glob(FINDERS)):
        try:
            body = ast.parse(_text(file)).body
        except (SyntaxError, ValueError):
            continue
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
