"""What a run may see of this machine: pure but for links and folders.

A run sees the system, its environment and its own attempt. Nothing else of the machine is there:
no other run, no folder of the platform, no home. The first two are one view for all runs of an
environment, as bubblewrap is told it (`Base`); its own folders each run lays on a copy of that
(`stellwerk_shim.cell`). docs/adr/0030-sandbox.md says why each line is.
"""

import hashlib
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from stellwerk_gpu_executor.launching import LaunchRequest

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
OWN_USERS = "--unshare-user"
WALLS = (
    *(OWN_USERS, "--unshare-pid", "--unshare-ipc"),
    *("--cap-drop", "ALL", "--die-with-parent", "--new-session"),
)
"""Of the process that holds a view until the executor does; each run has its own."""
LINKS = 10
"""So many lead to an interpreter at most."""
OWN_IN_A_CELL = ("/etc", "/proc", "/sys", "/dev", "/run")
"""Nothing of the machine's is shown there but what is named above."""
AGENT = "agent"
"""Folder of the in-run library, beside that of the attempts."""
WARM_HOME, WARM_CODE = "warm", "shim"
"""Where a warm process sees its home and our code, among the attempts."""
OWN = ("work", "home", "tmp", "uploads", "produced", "user_logs")
"""Of its attempt folder a run writes to these; its log, records, lease and end are not its own."""


@dataclass(frozen=True, slots=True)
class Base:
    """What the view of an environment's runs is made of, besides what all runs have.

    ``attempts``: where the folders of attempts will be; ``writable``: places of other folders that
    each run has to write to; ``devices``: of GPUs.
    """

    attempts: str
    readable: tuple[Path, ...] = ()
    writable: tuple[Path, ...] = ()
    python: Path | None = None
    sources: tuple[Path, ...] = ()
    devices: tuple[Path, ...] = ()


def base_of(request: LaunchRequest) -> Base:
    """What a run shares with others: all but what lies beside its attempt folder."""
    attempts = os.path.dirname(os.path.abspath(request.folder))  # noqa: PTH100, PTH120 - half the cost
    below = attempts + "/"
    devices = (path for pattern in GPUS for path in Path("/dev").glob(pattern))
    return Base(
        attempts,
        tuple(path for path in request.readable if not os.fspath(path).startswith(below)),
        tuple(path for path in request.writable if not os.fspath(path).startswith(below)),
        request.python,
        request.sources,
        tuple(sorted(devices)) if request.gpus else (),
    )


def cell_of(
    request: LaunchRequest, below_tmp: Sequence[str], *, network: bool
) -> dict[str, object]:
    """What a run lays on its copy of the view, as `stellwerk_shim.cell` reads it."""
    folder = os.path.abspath(request.folder)  # noqa: PTH100 - half its cost
    attempts = os.path.dirname(folder)  # noqa: PTH120
    beside = [str(path) for path in map(os.path.abspath, request.readable)]
    mounts = [(f"{folder}/tmp", "/tmp", True)]  # noqa: S108 - inside
    mounts += [(path, path, False) for path in beside if _is_beside(path, folder, attempts)]
    mounts.append((folder, folder, False))
    writable = [*own_folders(folder, beside), *map(os.path.abspath, request.writable)]
    mounts += [(path, path, True) for path in writable]
    mounts.append((RESOLVER, RESOLVER, False))  # as it is at the time: networks change
    return {"root": attempts, "mounts": mounts, "below_tmp": below_tmp, "network": network}


def warm_cell(
    home: str, shim: str, attempts: str, below_tmp: Sequence[str], *, network: bool
) -> dict[str, object]:
    """What a warm process lays on its copy of the view: its ``home`` and our code, to read.

    They are where attempts are for runs, so no run's own folders hide them or are hidden.
    """
    # Beside the home: what lies in there can be a link to anywhere by the next time.
    mounts = [(f"{home}.tmp", "/tmp", True)]  # noqa: S108 - inside
    mounts += [(home, f"{attempts}/{WARM_HOME}", True)]
    mounts += [(shim, f"{attempts}/{WARM_CODE}/{os.path.basename(shim)}", False)]  # noqa: PTH119
    mounts.append((RESOLVER, RESOLVER, False))
    common = {"root": attempts, "mounts": mounts, "below_tmp": below_tmp, "network": network}
    return {**common, "others": True}


def below_tmp(command: Sequence[str]) -> list[str]:
    """Places of a view that a run's own /tmp would hide."""
    binds = (command[at + 2] for at, part in enumerate(command) if part == "--ro-bind-try")
    covers = (command[at + 1] for at, part in enumerate(command) if part == "--tmpfs")
    found = {Path(place): Path(place) for place in (*binds, *covers) if place.startswith("/tmp/")}  # noqa: S108
    return [str(place) for place in outermost(found, within=())]


def _is_beside(path: str, folder: str, attempts: str) -> bool:
    return path.startswith(attempts + "/") and path != folder and not path.startswith(folder + "/")


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

    def command(self, base: Base) -> list[str]:
        """Bubblewrap's command line for a view, without a program.

        Nothing that a run may choose (its variables, its command) says what it sees.
        """
        needed = [*self.libraries, *base.sources]
        needed += [] if base.python is None else prefixes(base.python)
        shown = outermost(places(self.readable) | places(needed, self.hidden))
        line = [self.bwrap, *WALLS, *_system(self.etc, base.devices)]
        line += ["--dir", "/tmp", "--symlink", "../tmp", "/var/tmp"]  # noqa: S108 - inside
        for place, real in shown.items():
            line += ["--ro-bind-try", str(real), str(place)]
        for place in covered(self.hidden, places(map(Path, SYSTEM)) | shown):
            line += ["--tmpfs", str(place)]
        line += _binds("--ro-bind-try", [path.absolute() for path in base.readable])
        for folder in (base.attempts, *(path.absolute() for path in base.writable)):
            line += ["--dir", str(folder)]
        return [*line, "--chdir", "/"]

    def marks(self, base: Base) -> tuple[object, ...]:
        """What the command line was made from as it is now: as long as that stays, it is right."""
        needed = (*self.readable, *self.libraries, *base.sources, *base.readable)
        folders = tuple(_identity(os.fspath(path)) for path in needed)
        return folders if base.python is None else (*folders, *_links(base.python))


def _identity(path: str) -> object:
    """Which folder or file that is; one that a view shows keeps its number to itself."""
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path for each would double the cost
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _links(python: Path) -> Iterator[object]:
    """The links that lead to an interpreter's file, and the folders its installations are in."""
    path = os.fspath(python)
    for _ in range(LINKS):
        yield _identity(os.path.dirname(os.path.dirname(path)))  # noqa: PTH120
        try:
            target = os.readlink(path)  # noqa: PTH115
        except OSError:
            return
        yield target
        path = os.path.normpath(os.path.join(os.path.dirname(path), target))  # noqa: PTH118, PTH120


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


def _system(etc: Path, gpus: Sequence[Path]) -> list[str]:
    line = _binds("--ro-bind-try", map(Path, SYSTEM))
    for place in MERGED:
        if Path(place).is_symlink():
            line += ["--symlink", os.readlink(place).lstrip("/"), place]  # noqa: PTH115 - text as it is
        elif Path(place).exists():
            line += ["--ro-bind", place, place]
    line += ["--ro-bind", str(etc), "/etc"]
    line += ["--proc", "/proc", *_devices(), "--dir", "/run"]
    line += _binds("--ro-bind-try", map(Path, HARDWARE))
    if gpus:
        line += _binds("--dev-bind-try", gpus)
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
    return [*line, "--dir", "/dev/shm"]  # noqa: S108 - a place for one


def prefixes(python: Path) -> list[Path]:
    """Installations that an interpreter is part of: its own and, link by link, what it is made of.

    Those under /usr are seen anyway.
    """
    found: list[Path] = []
    for _ in range(LINKS):
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


def own_folders(folder: str, readable: Sequence[str]) -> list[str]:
    """What of its attempt folder a run may write to; an input that it has a copy of is its own."""
    there = set(os.listdir(folder))  # noqa: PTH208 - a tenth of the cost of paths
    own = [f"{folder}/{name}" for name in OWN if name in there]
    if "inputs" in there:
        copies = sorted(os.listdir(f"{folder}/inputs"))  # noqa: PTH208
        own += [path for name in copies if (path := f"{folder}/inputs/{name}") not in readable]
    return own


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
