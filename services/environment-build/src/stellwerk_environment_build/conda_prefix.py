"""A conda environment as its packages' own lists describe it: whose files, and which say where.

A conda environment knows where it lies: paths in its files are those of its final place. Programs
of packages could write to it, so its lists are read as anybody's.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stellwerk_kit.beneath import open_beneath

_META = "conda-meta"
_LARGEST_META = 64 << 20
_LONGEST_LINE = 4096
_STARTING_LINES = 2
"""A script names its interpreter in the first line, or where that is too long in the second."""
_UNPACKED = {"extracted_package_dir", "link"}
Content = Callable[[Path], bytes | None]


def is_conda(environment: Path) -> bool:
    """Whether conda packages are in it."""
    return (environment / _META).is_dir()


def linked(environment: Path) -> dict[str, str]:
    """Which package says that it linked a path; "" where several do."""
    owners: dict[str, str] = {}
    for title, about in _lists(environment):
        paths = {entry["_path"] for entry in about["paths_data"]["paths"]}
        for path in (*paths, f"{_META}/{title}.json"):
            owners[path] = "" if path in owners else title
    return owners


def forget_place(environment: Path, channels: Mapping[str, str]) -> None:
    """Take out of its lists what holds for this place alone, and so in no image of it.

    That is where packages were unpacked, the hashes of files that name the place, and the addresses
    of channels: ``channels`` are their names.
    """
    for title, about in list(_lists(environment)):
        kept = {key: each for key, each in about.items() if key not in _UNPACKED}
        for address, name in channels.items():
            if str(kept.get("channel")).rstrip("/") == address.rstrip("/"):
                kept["channel"] = name
                kept["url"] = f"conda:{name}/{kept.get('subdir')}/{kept.get('fn')}"
        for entry in kept["paths_data"]["paths"]:
            entry.pop("sha256_in_prefix", None)
            if _is_entry_point(entry):
                entry.pop("sha256", None)
        _write_anew(environment / _META / f"{title}.json", json.dumps(kept, indent=1))


def repoint_scripts(environment: Path, prefix: Path) -> None:
    """Let scripts that start ``environment``'s interpreter start the one at ``prefix``.

    Their hashes in the packages' RECORDs, which name the place as well, go.
    """
    repointed: set[str] = set()
    old, new = (f"{place}/bin/".encode() for place in (environment, prefix))
    for script in (environment / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        with script.open("rb") as file:
            head = b"".join(file.readline(_LONGEST_LINE) for _ in range(_STARTING_LINES))
            if not _starts(head, old):
                continue
            rest = file.read()
        fresh = script.with_name(f".{script.name}.new")
        fresh.write_bytes(head.replace(old, new) + rest)
        fresh.chmod(script.stat().st_mode)
        fresh.replace(script)
        repointed.add(f"../../../bin/{script.name}")
    for record in environment.glob("lib/python3.*/site-packages/*.dist-info/RECORD"):
        lines = record.read_bytes().decode(errors="replace").splitlines(keepends=True)
        fresh_lines = [_without_hash(line, repointed) for line in lines]
        if fresh_lines != lines:
            _write_anew(record, "".join(fresh_lines))


def _write_anew(path: Path, text: str) -> None:
    """A link in its place is replaced, not followed."""
    path.unlink()
    with path.open("x", encoding="utf-8") as file:
        file.write(text)


def _starts(script: bytes, old: bytes) -> bool:
    """Whether it is started by what lies at ``old``."""
    first = script.split(b"\n", _STARTING_LINES)[:_STARTING_LINES]
    return script.startswith(b"#!") and any(old in line for line in first)


def _without_hash(line: str, paths: set[str]) -> str:
    path, comma, _ = line.partition(",")
    return f"{path},,\n" if comma and path in paths else line


def moved(environment: Path, place: str) -> Content:
    """What files of ``environment`` have to hold at ``place``; None for those that stay the same.

    In text the path is exchanged; in binaries too, filled up to the length that was there, so
    ``place`` must not be longer than where ``environment`` lies.
    """
    old, new = str(environment).encode(), place.encode()
    binary = re.compile(re.escape(old) + rb"([^\0]*)\0")
    modes = _modes(environment)
    conda = is_conda(environment)
    if conda and len(new) > len(old):
        raise ValueError(f"{place}: longer than {environment}")

    def content(path: Path) -> bytes | None:
        inside = path.relative_to(environment).as_posix()
        script = conda and inside.startswith("bin/")
        if not (script or inside in modes) or path.is_symlink() or not path.is_file():
            return None
        data = path.read_bytes()
        if modes.get(inside) == "binary":
            return binary.sub(lambda found: (new + found[1]).ljust(len(found[0]), b"\0"), data)
        is_text = inside in modes or _starts(data, old)
        return data.replace(old, new) if is_text else None

    return content


def _modes(environment: Path) -> dict[str, str]:
    """``text`` or ``binary`` for each file that names its place, as the packages say."""
    found = {}
    for _, about in _lists(environment):
        for entry in about["paths_data"]["paths"]:
            if entry.get("prefix_placeholder") or _is_entry_point(entry):
                found[entry["_path"]] = entry.get("file_mode") or "text"
    return found


def _is_entry_point(entry: Mapping[str, Any]) -> bool:
    return "entry_point" in str(entry.get("path_type"))


def _lists(environment: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """What each package has noted, by its ``name-version-build``; without what is no such list."""
    for path in sorted((environment / _META).glob("*.json")):
        try:
            file = open_beneath(environment, path)
            if file.path.stat().st_size > _LARGEST_META:
                continue
            about = json.loads(file.path.read_bytes())
            if all(isinstance(each["_path"], str) for each in about["paths_data"]["paths"]):
                yield path.stem, about
        except (OSError, ValueError, LookupError, TypeError, RecursionError):
            continue
