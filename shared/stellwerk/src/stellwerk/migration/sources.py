"""Finds a user's code: scripts, notebooks, and files that notebooks write. Nothing is run.

IPython's own syntax is taken out of cells; a ``%%writefile`` cell is the file that it writes.
"""

import ast
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stellwerk.sizes import size_text

SKIPPED_FOLDERS = {".git", ".venv", "venv", "node_modules", "__pycache__", ".ipynb_checkpoints"}
SPEC = re.compile(r"(?:^|/)(?:requirements[^/]*\.txt|[^/]*\.ya?ml)$", re.IGNORECASE)
MAX_BYTES = 20_000_000

_HARMLESS = re.compile(r"%%(?:time|timeit|capture|prun)\b")
_WRITTEN = re.compile(r"%%(?:writefile|file)\s+(?:-a\s+)?(\S+)")
_MAGIC = re.compile(r"^(\s*)(?:[%!?]|[\w.]+\?{1,2}\s*$)")
_ASSIGNED = re.compile(r"^(\s*[\w., ]+=\s*)[%!]")


@dataclass
class Source:
    """One file: its code in parts (``label`` is empty or names a cell) and its whole text.

    ``trees`` is empty for a file that is no code; ``broken`` says what could not be parsed.
    """

    path: str
    text: str = ""
    trees: list[tuple[str, ast.Module]] = field(default_factory=list)
    broken: list[tuple[str, str]] = field(default_factory=list)

    def add(self, label: str, code: str) -> None:
        """Parse one part."""
        try:
            self.trees.append((label, ast.parse(code)))
        except (SyntaxError, ValueError, RecursionError) as error:
            line = getattr(error, "lineno", None)
            self.broken.append((place(label, line), getattr(error, "msg", None) or str(error)))


def place(label: str, line: int | None) -> str:
    """A line for people: ``12``, or ``cell 3:2``."""
    return ":".join(str(each) for each in (label, line) if each not in ("", None))


def find(folder: Path) -> Iterator[Source]:
    """All scripts, notebooks, conda and requirements files below a folder (or the one file)."""
    if folder.is_file():
        yield from _read(folder, folder.name)
        return
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - SKIPPED_FOLDERS)
        for name in sorted(names):
            path = Path(root, name)
            shown = path.relative_to(folder).as_posix()
            if path.suffix in {".py", ".ipynb"} or SPEC.search(shown):
                yield from _read(path, shown)


def _read(path: Path, shown: str) -> Iterator[Source]:
    source = Source(shown)
    try:
        if path.stat().st_size > MAX_BYTES:
            source.broken.append(("", f"larger than {size_text(MAX_BYTES)}; not read"))
        else:
            source.text = path.read_text("utf-8-sig")
    except (OSError, UnicodeError) as error:
        source.broken.append(("", getattr(error, "strerror", None) or "no UTF-8 text"))
    if source.broken:
        yield source
    elif path.suffix == ".ipynb":
        yield from _notebook(source)
    else:
        if path.suffix == ".py":
            source.add("", source.text)
        yield source


def _notebook(source: Source) -> Iterator[Source]:
    try:
        cells = list(_code_cells(json.loads(source.text)))
    except (ValueError, TypeError, AttributeError, KeyError):
        source.broken.append(("", "no notebook of version 3 or later"))
        yield source
        return
    source.text = "\n".join(text for _, text in cells)
    written: list[Source] = []
    for number, text in cells:
        label = f"cell {number}"
        head, _, rest = text.lstrip("\n").partition("\n")
        if found := _WRITTEN.match(head):
            name = found[1].strip("\"'")
            file = Source(f"{source.path} > {name}", rest)
            if name.endswith(".py"):
                file.add(label, rest)
            written.append(file)
        elif not head.startswith("%%") or _HARMLESS.match(head):
            source.add(label, plain(text))
    yield source
    yield from written


def _code_cells(content: dict[str, Any]) -> Iterator[tuple[int, str]]:
    sheets = content.get("worksheets")
    cells = content["cells"] if sheets is None else sheets[0]["cells"]
    for number, cell in enumerate((c for c in cells if c["cell_type"] == "code"), 1):
        text = cell.get("source", cell.get("input", ""))
        yield number, text if isinstance(text, str) else "".join(text)


def plain(cell: str) -> str:
    """A cell without IPython's own syntax; lines keep their numbers."""
    try:
        ast.parse(cell)
    except (SyntaxError, ValueError):
        return "\n".join(_plain_lines(_dedented(cell).split("\n")))
    return cell


def _dedented(cell: str) -> str:
    """Without the indentation of the first line, as IPython reads it."""
    indent = re.match(r"\s*?([ \t]*)(?=\S)", cell)
    return re.sub(f"(?m)^{indent[1]}", "", cell) if indent and indent[1] else cell


def _plain_lines(lines: list[str]) -> Iterator[str]:
    goes_on = False
    for line in lines:
        if goes_on:
            shown = ""
        elif found := _MAGIC.match(line):
            shown = f"{found[1]}pass"
        elif found := _ASSIGNED.match(line):
            shown = f"{found[1]}None"
        else:
            yield line
            continue
        goes_on = line.rstrip().endswith("\\")
        yield shown
