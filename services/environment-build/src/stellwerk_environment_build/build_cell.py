"""What a channel's interpreter may see of the builder's machine: the system, its own environment.

The interpreter is a package of a channel, and the builder starts it: uv asks it what it is, it
compiles modules, it tells what the packages set. In a cell of bubblewrap it has no network and no
privilege, and nothing of the machine beside the system and what it is given.
"""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Mode = Literal["auto", "require", "off"]
PROBE_S = 20.0
INSTALL = "bubblewrap is not installed (apt-get install bubblewrap)"
_MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_SYSTEM = ("/usr", "/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives")
_NETWORK = (
    *("/etc/resolv.conf", "/etc/hosts", "/etc/nsswitch.conf", "/etc/host.conf", "/etc/ssl"),
    *("/etc/pki", "/etc/ca-certificates"),
)
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class CellSettings:
    """``readable``: folders that are shown besides the system."""

    mode: Mode = "auto"
    readable: tuple[Path, ...] = ()


@dataclass(frozen=True)
class BuildCell:
    """Command lines that start a program in a cell; what it starts ends with it."""

    bwrap: str
    readable: tuple[Path, ...] = ()

    def command(
        self,
        words: Sequence[str],
        *,
        readable: Iterable[Path] = (),
        writable: Iterable[Path] = (),
        at: Mapping[Path, Path] | None = None,
        network: bool = False,
    ) -> list[str]:
        """``words`` in a cell; ``at``: folders that are read at another place than their own."""
        line = self._walls()
        if network:
            line.append("--share-net")
            for place in _NETWORK:
                line += ["--ro-bind-try", place, place]
        for path in (*self.readable, *readable):
            line += ["--ro-bind-try", str(path), str(path)]
        for folder in writable:
            line += ["--bind", str(folder), str(folder)]
        for path, elsewhere in (at or {}).items():
            line += ["--ro-bind", str(path), str(elsewhere)]
        return [*line, "--chdir", "/", "--", *words]

    def asked_by_uv(self, python: Path, target: Path, cache: Path) -> str:
        """A script that starts ``python`` of ``target`` for uv, without uv's environment.

        uv names a folder of its ``cache``, which holds its question; the rest is not shown.
        """
        line = self.command((), readable=(target,))[:-1]
        place = shlex.quote(f"{cache}/.tmp")
        return (
            "#!/bin/sh\n"
            f"asked={place}\n"
            "for word; do\n"
            f"  case $word in *{place}*) rest=${{word#*{place}}}; "
            f"asked={place}${{rest%%[!A-Za-z0-9]*}} ;; esac\n"
            "done\n"
            f"exec env -i LC_ALL=C.UTF-8 {shlex.join(line)} "
            f'--ro-bind-try "$asked" "$asked" -- {shlex.quote(str(python))} "$@"\n'
        )

    def _walls(self) -> list[str]:
        line = [
            *(self.bwrap, "--unshare-all", "--unshare-user", "--cap-drop", "ALL"),
            # No session of its own: who ends the step's process group ends all of it at any moment.
            *("--die-with-parent", "--proc", "/proc"),
            *("--tmpfs", "/dev", "--tmpfs", "/tmp", "--dir", "/run"),  # noqa: S108 - its own
        ]
        for name in _DEVICES:
            line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
        for place in _SYSTEM:
            line += ["--ro-bind-try", place, place]
        for place in _MERGED:
            if Path(place).is_symlink():
                line += ["--symlink", os.readlink(place).lstrip("/"), place]  # noqa: PTH115
            elif Path(place).exists():
                line += ["--ro-bind", place, place]
        return line


def own_installation(environ: Mapping[str, str]) -> list[Path]:
    """What this service's Python needs to be started in a cell, beside the system."""
    libraries = environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    found = (Path(each) for each in (sys.prefix, sys.base_prefix, *sys.path, *libraries) if each)
    places = sorted({place for each in found for place in (each.absolute(), each.resolve())})
    kept: list[Path] = []
    for place in places:
        inner = any(place.is_relative_to(each) for each in (*kept, Path("/usr")))
        if place.is_dir() and not inner and place != Path("/"):
            kept.append(place)
    return kept


def find_cell(settings: CellSettings) -> tuple[BuildCell | None, str]:
    """The cell of this machine, or None and why there is none. Blocks for some milliseconds."""
    if settings.mode == "off":
        return None, "STELLWERK_BUILD_SANDBOX=off"
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None, INSTALL
    cell = BuildCell(bwrap, tuple(each.absolute() for each in settings.readable))
    try:
        done = subprocess.run(
            cell.command(["/usr/bin/env", "true"]),
            capture_output=True,
            timeout=PROBE_S,
            check=False,
            env={"PATH": os.defpath},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"bubblewrap cannot be tried: {error}"
    if done.returncode != 0:
        said = done.stderr.decode(errors="replace").strip()
        return None, f"bubblewrap does not work here: {said[-300:]}"
    return cell, ""
