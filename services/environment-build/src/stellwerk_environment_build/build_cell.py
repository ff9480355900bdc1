"""What a channel's interpreter may see of the builder's machine: the system, its own environment.

The interpreter is a package of a channel, and the builder starts it: uv asks it what it is, it
compiles modules, it tells what the packages set. In a cell it has no network and no privilege, and
nothing of the machine beside the system and what it is given. bubblewrap makes the cell; where it
cannot, as in a container, the engine that makes images does (:mod:`engine_cell`).
"""

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from stellwerk_environment_build.engine_cell import walls_by_engine

if TYPE_CHECKING:  # its library is slow to load
    from stellwerk_environment_build.image_engine import ImageSettings

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
    """Command lines that start a program in a cell; what it starts ends with it.

    ``walls`` begin the line: bubblewrap, or what takes the same words in its place.
    """

    walls: tuple[str, ...]
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
        line = [*self.walls]
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


def own_interpreter() -> list[Path]:
    """What this service's Python needs to be started in a cell, without packages."""
    return _beside_system((sys.prefix, sys.base_prefix))


def own_installation(environ: Mapping[str, str]) -> list[Path]:
    """What this service's Python needs to be started in a cell, beside the system."""
    libraries = environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    return _beside_system((sys.prefix, sys.base_prefix, *sys.path, *libraries))


def _beside_system(folders: Iterable[str]) -> list[Path]:
    found = (Path(each) for each in folders if each)
    places = sorted({place for each in found for place in (each.absolute(), each.resolve())})
    kept: list[Path] = []
    for place in places:
        inner = any(place.is_relative_to(each) for each in (*kept, Path("/usr")))
        if place.is_dir() and not inner and place != Path("/"):
            kept.append(place)
    return kept


def find_cell(
    settings: CellSettings, folder: Path, engine: "ImageSettings | None" = None
) -> tuple[BuildCell | None, str]:
    """A cell that works for what lies in ``folder``, or None and why there is none.

    ``engine``: how images are made, where they are; raises BuildFailedError where it is away, or
    has no base. Blocks for some milliseconds, with an engine for a second or two.
    """
    if settings.mode == "off":
        return None, "STELLWERK_BUILD_SANDBOX=off"
    readable = tuple(each.absolute() for each in settings.readable)
    bwrap = shutil.which("bwrap")
    missing = INSTALL
    if bwrap is not None:
        cell = BuildCell(_walls_by_bubblewrap(bwrap), readable)
        missing = _trouble(cell, folder)
        if not missing:
            return cell, ""
        missing = f"bubblewrap does not work here: {missing}"
    if engine is None:
        return None, missing
    cell = BuildCell((*walls_by_engine(engine), *_system()), (*own_interpreter(), *readable))
    trouble = _trouble(cell, folder)
    return (None, f"{missing}; nor does a container: {trouble}") if trouble else (cell, "")


def _walls_by_bubblewrap(bwrap: str) -> tuple[str, ...]:
    """How a command line begins: no privilege, no network, the system to read."""
    line = [
        *(bwrap, "--unshare-all", "--unshare-user", "--cap-drop", "ALL"),
        # No session of its own: who ends the step's process group ends all of it at any moment.
        *("--die-with-parent", "--proc", "/proc"),
        *("--tmpfs", "/dev", "--tmpfs", "/tmp", "--dir", "/run"),  # noqa: S108 - its own
    ]
    for name in _DEVICES:
        line += ["--dev-bind", f"/dev/{name}", f"/dev/{name}"]
    return (*line, *_system())


def _system() -> list[str]:
    line = []
    for place in _SYSTEM:
        line += ["--ro-bind-try", place, place]
    for place in _MERGED:
        if Path(place).is_symlink():
            line += ["--symlink", os.readlink(place).lstrip("/"), place]  # noqa: PTH115
        elif Path(place).exists():
            line += ["--ro-bind", place, place]
    return line


def _trouble(cell: BuildCell, folder: Path) -> str:
    """Why a program in the cell cannot read and write below ``folder``; "" where it can."""
    with tempfile.TemporaryDirectory(dir=folder) as made:
        asked, answer = Path(made, "asked"), Path(made, "answer")
        asked.write_text(made)
        copy = ["/bin/sh", "-c", 'exec /bin/cat "$0" > "$1"', str(asked), str(answer)]
        try:
            done = subprocess.run(
                cell.command(copy, writable=(Path(made),)),
                capture_output=True,
                timeout=PROBE_S,
                check=False,
                env={"PATH": os.defpath},
            )
            if done.returncode == 0 and answer.read_text() == made:
                return ""
        except (OSError, subprocess.TimeoutExpired) as error:
            return f"it cannot be tried: {error}"
    said = done.stderr.decode(errors="replace").strip()
    return said[-300:] or f"it ended with status {done.returncode}"
