"""A conda environment knows where it lies: paths in its files are those of its final place."""

from pathlib import Path

_LONGEST_FIRST_LINE = 4096


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
