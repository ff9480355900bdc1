"""What a run may see of this machine, as bubblewrap is told it. Pure but for links and folders.

A run sees the system, its environment and its own attempt. Nothing else of the machine is there:
no other run, no folder of the platform, no home. docs/adr/0030-sandbox.md says why each line is.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stellwerk_gpu_executor.launcher import LaunchRequest

SYSTEM = ("/usr", "/opt")
MERGED = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
"""Links into /usr on today's systems."""
CONFIGURATION = (
    *("alternatives", "ca-certificates", "crypto-policies", "fonts", "group", "host.conf", "hosts"),
    *("ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime", "mime.types", "nsswitch.conf"),
    *("os-release", "passwd", "pki", "protocols", "services", "ssl", "timezone"),
)
"""Of /etc: what libraries read. No key and no password is among it."""
RESOLVER = "/etc/resolv.conf"
HARDWARE = ("/sys/devices", "/sys/class")
HARDWARE_GPU = ("/sys/bus", "/sys/module")
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
GPUS = ("nvidia*", "nvidia-caps", "dri", "kfd")
OWN_IN_A_CELL = ("/etc", "/proc", "/sys", "/dev", "/run")
"""Nothing of the machine's is shown there but what is named above."""
OWN = ("work", "home", "tmp", "uploads", "produced", "user_logs")
"""Of its attempt folder a run writes to these; its log, records, lease and end are not its own."""


@dataclass(frozen=True, slots=True)
class View:
    """What is the same for all runs of one executor.

    ``etc``: see `copy_configuration`; ``hidden``: folders of the platform, links resolved;
    ``readable``: what an operator shows to every run; ``libraries``: see the function.
    """

    bwrap: str
    etc: Path
    hidden: tuple[Path, ...] = ()
    readable: tuple[Path, ...] = ()
    libraries: tuple[Path, ...] = ()
    network: bool = True

    def command(self, request: LaunchRequest) -> list[str]:
        """Bubblewrap's command line for one run, without a program.

        Nothing that a run may choose (its variables, its command) says what it sees.
        """
        folder = request.folder.absolute()
        needed = [*self.libraries, *request.sources]
        needed += [] if request.python is None else prefixes(request.python)
        shown = outermost(places(self.readable) | places(needed, self.hidden))
        line = [self.bwrap, *_walls(network=self.network), *_system(self.etc, request.gpus)]
        line += ["--bind", str(folder / "tmp"), "/tmp", "--symlink", "../tmp", "/var/tmp"]  # noqa: S108 - inside
        for place, real in shown.items():
            line += ["--ro-bind-try", str(real), str(place)]
        for place in covered(self.hidden, places(map(Path, SYSTEM)) | shown):
            line += ["--tmpfs", str(place)]
        readable = [path.absolute() for path in request.readable]
        line += _binds("--ro-bind-try", [*readable, folder])
        writable = [path.absolute() for path in request.writable]
        line += _binds("--bind", [*own_folders(folder, readable), *writable])
        return [*line, "--chdir", "/"]

    def probe(self) -> list[str]:
        """A cell as runs have it, without any run's own folders."""
        return [self.bwrap, *_walls(network=self.network), *_system(self.etc, 0), "--chdir", "/"]


def copy_configuration(folder: Path, source: Path = Path("/etc")) -> Path:
    """Make what runs have as /etc, below ``folder``: one folder, as each bind costs every run time.

    What only root may read is left out. Runs of an earlier start may still use another copy.
    """
    found = [path for name in CONFIGURATION for path in _files(source / name)]
    facts = [(str(path), os.lstat(path).st_mtime_ns) for path in found]
    target = folder / hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    if not target.exists():
        making = folder / f"{target.name}.new"
        shutil.rmtree(making, ignore_errors=True)
        for path in found:
            copy = making / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy, follow_symlinks=False)
        (making / "resolv.conf").touch()
        making.rename(target)
    return target


def _files(path: Path) -> list[Path]:
    """Files and links at or below ``path`` that everybody may read."""
    if path.is_symlink():
        return [path]
    if not path.exists() or not path.stat().st_mode & 0o004:
        return []
    return [path] if path.is_file() else [f for p in sorted(path.iterdir()) for f in _files(p)]


def _walls(*, network: bool) -> list[str]:
    walls = [
        *("--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"),
        *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
    ]
    return walls if network else [*walls, "--unshare-net"]


def _system(etc: Path, gpus: int) -> list[str]:
    line = _binds("--ro-bind-try", map(Path, SYSTEM))
    for place in MERGED:
        if Path(place).is_symlink():
            line += ["--symlink", os.readlink(place).lstrip("/"), place]  # noqa: PTH115 - text as it is
        elif Path(place).exists():
            line += ["--ro-bind", place, place]
    line += ["--ro-bind", str(etc), "/etc"]
    line += ["--ro-bind-try", RESOLVER, RESOLVER]  # as it is at the time: networks change
    line += ["--proc", "/proc", *_devices(), "--dir", "/run"]
    line += _binds("--ro-bind-try", map(Path, HARDWARE))
    if gpus:
        found = (path for pattern in GPUS for path in Path("/dev").glob(pattern))
        line += _binds("--dev-bind-try", sorted(found))
        line += _binds("--ro-bind-try", map(Path, HARDWARE_GPU))
    return line


def _devices() -> list[str]:
    """Terminals of its own only where bubblewrap can make them in the cell's own users: as root."""
    if os.geteuid() == 0:
        return ["--dev", "/dev"]
    links = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1"}
    line = ["--tmpfs", "/dev", *_binds("--dev-bind", (Path("/dev", name) for name in DEVICES))]
    for name, target in (links | {"stderr": "/proc/self/fd/2"}).items():
        line += ["--symlink", target, f"/dev/{name}"]
    return [*line, "--tmpfs", "/dev/shm"]  # noqa: S108 - a new one


def prefixes(python: Path) -> list[Path]:
    """Installations that an interpreter is part of: its own and, link by link, what it is made of.

    Those under /usr are seen anyway.
    """
    found: list[Path] = []
    for _ in range(10):
        place = python.parent.parent
        if python.parent.name == "bin" and place != Path("/") and place != Path("/usr"):
            found.append(place)
            found.append(place.resolve())
        if not python.is_symlink():
            break
        python = Path(os.path.normpath(python.parent / python.readlink()))
    return list(dict.fromkeys(found))


def libraries(env: Mapping[str, str]) -> tuple[Path, ...]:
    """Folders of the executor's own LD_LIBRARY_PATH: an interpreter may need them to load."""
    named = env.get("LD_LIBRARY_PATH", "").split(":")
    return tuple(Path(each) for each in named if each.startswith("/") and each.strip("/"))


def own_folders(folder: Path, readable: Sequence[Path]) -> list[Path]:
    """What of its attempt folder a run may write to; an input that it has a copy of is its own."""
    inputs = folder / "inputs"
    copies = sorted(inputs.iterdir()) if inputs.exists() else []
    places = [folder / name for name in OWN if (folder / name).exists()]
    return [*places, *(path for path in copies if path not in readable)]


def places(paths: Iterable[Path], hidden: Sequence[Path] | None = None) -> dict[Path, Path]:
    """Where each path and what it leads to is seen, by place; the value has no links and no `..`.

    With ``hidden``, nothing of the machine that is not a run's to see: in a folder of the platform,
    in what a cell has its own of, a whole home or more.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        real = path.resolve()
        own_name = [] if ".." in path.parts or path.is_relative_to("/proc") else [path]
        for place in (*own_name, real):
            if hidden is None or not any(_private(each, hidden) for each in (place, real)):
                found[place] = real
    return found


def _private(path: Path, hidden: Sequence[Path]) -> bool:
    closed = [*hidden, *map(Path, OWN_IN_A_CELL)]
    return any(path.is_relative_to(each) for each in closed) or any(
        each.is_relative_to(path)
        for each in (Path.home(), Path("/home"), Path("/tmp"))  # noqa: S108
    )


def covered(hidden: Iterable[Path], shown: dict[Path, Path]) -> list[Path]:
    """Where folders of the platform would be seen, by whatever name, in places that are shown."""
    found = {
        place / path.relative_to(real): None
        for path in hidden
        for place, real in shown.items()
        if path.is_relative_to(real)
    }
    return list(found)


def outermost(shown: dict[Path, Path], within: Sequence[str] = SYSTEM) -> dict[Path, Path]:
    """Without places that lie in another, or in one of ``within``."""
    kept: dict[Path, Path] = {}
    for place in sorted(shown):
        if not any(place.is_relative_to(each) for each in [*kept, *map(Path, within)]):
            kept[place] = shown[place]
    return kept


def _binds(how: str, paths: Iterable[Path]) -> list[str]:
    return [part for path in paths for part in (how, str(path), str(path))]
