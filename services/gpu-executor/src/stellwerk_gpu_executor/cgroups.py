"""Control groups of runs: limits that the kernel keeps, whatever a run starts.

Version 1, version 2 and hosts with both. A group for each run and controller that it needs lies
below one folder of this executor; the run's first process enters it, the supervisor reads what
the kernel counted. To make and to remove one takes the kernel milliseconds, so groups that
have the usual limit of processes and nothing else go from run to run.

A run that begins in a warm process behind walls begins in that one's group, and must not stay
within its limit: it has a group for memory, limit or none.
"""

import os
import secrets
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from stellwerk_shim import cgroup

CONTROLLERS = ("memory", "pids", "cpu")
PERIOD_US = 100_000
PIDS = 4096
"""Threads count; a framework starts several for each core."""
SHARED = "usual-"
"""Begin of the name of a group that goes from run to run."""
USUAL = ("memory", "pids")
"""Its controllers; without a kind of runs that it goes between, of processes alone."""
SPARE = 16
WARM = "warm-"
"""Begin of the name of a warm process's group."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Limits of one run; None: as much as there is."""

    memory_bytes: int | None = None
    cpus: float | None = None
    pids: int = PIDS
    apart: bool = False
    """Whether it must be in another group for memory than who starts it."""

    def of(self, controller: str, *, unified: bool) -> dict[str, str]:
        """Files of ``controller`` and what they say; none where the run needs no group of it."""
        if controller == "pids":
            return {"pids.max": str(self.pids)}
        if controller == "memory":
            if self.memory_bytes is None and not self.apart:
                return {}
            if self.memory_bytes is None:
                return {"memory.max": "max"} if unified else {"memory.limit_in_bytes": "-1"}
            size = str(self.memory_bytes)
            if unified:
                return {"memory.max": size, "memory.swap.max": "0"}
            return {"memory.limit_in_bytes": size, "memory.memsw.limit_in_bytes": size}
        if controller == "cpu" and self.cpus is not None:
            quota = max(1000, int(self.cpus * PERIOD_US))
            if unified:
                return {"cpu.max": f"{quota} {PERIOD_US}"}
            return {"cpu.cfs_period_us": str(PERIOD_US), "cpu.cfs_quota_us": str(quota)}
        return {}


OPTIONAL = frozenset({"memory.swap.max", "memory.memsw.limit_in_bytes"})
"""Only where the kernel accounts for swap."""


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Controller → folder that groups of runs are made in. ``unified``: those of version 2."""

    folders: Mapping[str, Path]
    unified: frozenset[str] = frozenset()
    _spare: list[tuple[Path, ...]] = field(default_factory=list)
    _over: set[str] = field(default_factory=set)
    """Names of groups whose run is gone, until they are too: nobody in them belongs there."""

    def take(self, name: str, wanted: Wanted, kind: str = "") -> list[Path]:
        """The groups of a run, new ones called ``name`` or some that wait. Raises OSError.

        They go from run to run of one ``kind`` (letters and digits) only: what was loaded in a run
        may have kept the files that one enters them by.
        """
        if wanted != Wanted(apart=bool(kind)):
            return self.make(name, wanted)
        for groups in [each for each in self._spare if _kind(each[0].name) == kind]:
            self._spare.remove(groups)
            if _are_untouched(groups):
                return list(groups)
            self._over.add(groups[0].name)
        return self.make(f"{SHARED}{kind}-{secrets.token_hex(4)}", wanted)

    def give_back(self, groups: Iterable[Path]) -> None:
        """Take the groups of a run that is gone: those without a trace of it wait for the next."""
        given = tuple(groups)
        if not given or given in self._spare:
            return
        controllers = USUAL if _kind(given[0].name) else USUAL[1:]
        usual = {self.folders[each] for each in controllers if each in self.folders}
        of_its_kind = given[0].name.startswith(SHARED) and {each.parent for each in given} == usual
        if of_its_kind and len(self._spare) < SPARE and _are_untouched(given):
            self._spare.append(given)
            return
        self._over.add(given[0].name)
        self.remove(given[0].name)

    def make(self, name: str, wanted: Wanted) -> list[Path]:
        """Make the groups that a run needs; returns their folders. Raises OSError."""
        made: dict[Path, None] = {}
        self._over.discard(name)
        for controller, folder in self.folders.items():
            files = wanted.of(controller, unified=controller in self.unified)
            if not files:
                continue
            group = folder / name
            group.mkdir(parents=True, exist_ok=True)
            made[group] = None
            for file, text in files.items():
                if file not in OPTIONAL or (group / file).exists():
                    _write(group / file, text)
        return list(made)

    def remove(self, name: str) -> None:
        """Remove a run's groups; one with a process that is still ending stays for the sweep."""
        for folder in set(self.folders.values()):
            with suppress(OSError):
                (folder / name).rmdir()

    def close(self) -> None:
        """Remove the executor's own folders; where a run goes on its folder stays.

        A run's group stays also where nothing is in it: its supervisor may be about to open it.
        """
        for group, *_ in self._spare:
            self.remove(group.name)
        self._spare.clear()
        for folder in set(self.folders.values()):
            for group in folder.glob(f"{WARM}*"):  # whose process was still ending, before
                self.remove(group.name)
            with suppress(OSError):
                folder.rmdir()

    def sweep(self, known: Iterable[str]) -> None:
        """Remove the groups that are neither ``known`` nor wait for a run.

        Who is in one whose run is gone, or in one that waits, has moved there: it is killed.
        """
        for groups in [each for each in self._spare if not _are_untouched(each)]:
            self._spare.remove(groups)
            self._over.add(groups[0].name)
        keep = {*known, *(group.name for group, *_ in self._spare)}
        for folder in set(self.folders.values()):
            with suppress(OSError):
                names = [path.name for path in folder.iterdir() if path.is_dir()]
                for name in set(names) - keep:
                    if name in self._over:
                        cgroup.end_all([str(folder / name)])
                    self.remove(name)
        self._over.intersection_update(set().union(*map(_names, self.folders.values())))


def _names(folder: Path) -> set[str]:
    with suppress(OSError):
        return {path.name for path in folder.iterdir()}
    return set()


def _kind(name: str) -> str:
    """Of the runs that a group goes between."""
    return name.removeprefix(SHARED).rpartition("-")[0]


def _are_untouched(groups: Iterable[Path]) -> bool:
    """Whether nothing is in them and the kernel has counted nothing a supervisor would tell."""
    names = [str(group) for group in groups]
    try:
        left = any((Path(name) / "cgroup.procs").read_bytes() for name in names)
    except OSError:
        return False
    return not left and not cgroup.refused_forks(names)[0] and not cgroup.oom_kills(names)


def find(name: str, root: Path = Path("/sys/fs/cgroup"), own: str | None = None) -> Cgroups:
    """Make this executor's folders where the host lets us; without a controller it is left out.

    ``own`` is the text of /proc/self/cgroup.
    """
    text = Path("/proc/self/cgroup").read_text() if own is None else own
    folders: dict[str, Path] = {}
    unified: set[str] = set()
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in set(controllers.split(",")) & set(CONTROLLERS):
            folder = _first(_above(root / controller, path), name, [])
            if folder is not None:
                folders[controller] = folder
    missing = [controller for controller in CONTROLLERS if controller not in folders]
    place = next((line[3:] for line in text.splitlines() if line.startswith("0::")), None)
    mount = next((each for each in (root, root / "unified") if _is_unified(each)), None)
    if missing and place is not None and mount is not None:
        have = [each for each in missing if each in _words(mount / "cgroup.controllers")]
        folder = _first(_above(mount, place), name, have) if have else None
        if folder is not None:
            folders |= dict.fromkeys(have, folder)
            unified |= set(have)
    ordered = {each: folders[each] for each in CONTROLLERS if each in folders}
    return Cgroups(ordered, frozenset(unified))


def _above(mount: Path, path: str) -> list[Path]:
    """Our own group and those above it, ours first: limits set on us hold for runs as well."""
    own = mount / path.strip("/")
    found = [own, *own.parents] if own.is_dir() else [mount]
    return [each for each in found if each.is_relative_to(mount)]


def _first(places: list[Path], name: str, unified: list[str]) -> Path | None:
    """Make a folder in the first place where groups can be made (version 2: with controllers)."""
    for place in places:
        folder = place / name
        try:
            if unified:
                _enable(place, unified)
            folder.mkdir(exist_ok=True)
            if unified:
                _enable(folder, unified)
            (folder / "probe").mkdir(exist_ok=True)
            (folder / "probe").rmdir()
        except OSError:
            with suppress(OSError):
                folder.rmdir()
            continue
        return folder
    return None


def _enable(group: Path, controllers: list[str]) -> None:
    missing = [each for each in controllers if each not in _words(group / "cgroup.subtree_control")]
    if missing:
        _write(group / "cgroup.subtree_control", " ".join(f"+{each}" for each in missing))


def _is_unified(mount: Path) -> bool:
    return (mount / "cgroup.controllers").exists()


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []


def _write(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
