"""A conda environment knows where it lies: paths in its files are those of its final place."""

import json
import re
from collections.abc import Callable
from pathlib import Path

_LONGEST_FIRST_LINE = 4096
Content = Callable[[Path], bytes | None]


def repoint_scripts(environment: Path, prefix: Path) -> None:
    """Let scripts that start ``environment``'s interpreter start the one at ``prefix``."""
    old, new = f"#!{environment}/bin/".encode(), f"#!{prefix}/bin/".encode()
    for script in (environment / "bin").iterdir():
        if script.is_symlink() or not script.is_file():
            continue
        with script.open("rb") as file:
            first = file.readline(_LONGEST_FIRST_LINE)
            if not first.startswith(old):
                continue
            rest = file.read()
        fresh = script.with_name(f".{script.name}.new")
        fresh.write_bytes(new + first.removeprefix(old) + rest)
        fresh.chmod(script.stat().st_mode)
        fresh.replace(script)


def moved(environment: Path, place: str) -> Content:
    """What files of ``environment`` have to hold at ``place``; None for those that stay the same.

    In text the path is exchanged; in binaries too, filled up to the length that was there, so
    ``place`` must not be longer than where ``environment`` lies.
    """
    old, new = str(environment).encode(), place.encode()
    binary = re.compile(re.escape(old) + rb"([^\0]*)\0")
    modes = _modes(environment)
    is_conda = (environment / "conda-meta").is_dir()
    if is_conda and len(new) > len(old):
        raise ValueError(f"{place}: longer than {environment}")

    def content(path: Path) -> bytes | None:
        inside = path.relative_to(environment).as_posix()
        script = is_conda and inside.startswith("bin/")
        if not (script or inside in modes) or path.is_symlink() or not path.is_file():
            return None
        data = path.read_bytes()
        if modes.get(inside) == "binary":
            return binary.sub(lambda found: (new + found[1]).ljust(len(found[0]), b"\0"), data)
        is_text = inside in modes or data.startswith(b"#!" + old)
        return data.replace(old, new) if is_text else None

    return content


def _modes(environment: Path) -> dict[str, str]:
    """``text`` or ``binary`` for each file that names its place, as the packages say."""
    found = {}
    for meta in (environment / "conda-meta").glob("*.json"):
        for entry in json.loads(meta.read_bytes()).get("paths_data", {}).get("paths", ()):
            if entry.get("prefix_placeholder") or "entry_point" in entry.get("path_type", ""):
                found[entry["_path"]] = entry.get("file_mode") or "text"
    return found
