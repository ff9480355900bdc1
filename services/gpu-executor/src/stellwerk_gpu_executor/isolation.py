"""What this machine can do to keep runs apart and within limits: found once, said, and used.

`python -m stellwerk_gpu_executor.isolation` prints it as JSON, for ``stellwerk doctor``.
"""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

import stellwerk_shim
from stellwerk_gpu_executor import cgroup_owners, cgroups, rclone
from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.cgroups import Cgroups, Wanted
from stellwerk_gpu_executor.launching import LaunchRequest
from stellwerk_gpu_executor.sandbox import (
    AGENT,
    Base,
    View,
    base_of,
    cell_of,
    copy_configuration,
    libraries,
    outermost,
    warm_cell,
)
from stellwerk_gpu_executor.settings import Settings
from stellwerk_gpu_executor.site_folders import site_folders
from stellwerk_gpu_executor.views import Machine, OpenView, ViewError, Views, make

PROBE_S = 20.0
_ENTRY = Path(stellwerk_shim.__file__).with_name("__main__.py")
INSTALL = "bubblewrap is not installed (apt-get install bubblewrap)"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class WarmWalls:
    """The cell of a warm process, see `stellwerk_shim.cell`, its view and control groups.

    ``attempts`` is the folder that its own lie in, as it sees it.
    """

    cell: Mapping[str, object]
    view: OpenView
    groups: tuple[str, ...]
    attempts: str


@dataclass(frozen=True, slots=True)
class Isolation:
    """Walls and limits of runs; see launching.Walls. ``refusal``: why no run may start here."""

    views: Views | None = None
    attempts: str = ""
    """Folder of attempts, for warm processes."""
    plain_outside: bool = False
    """Whether warm processes that load no packages are outside of the walls."""
    groups: Cgroups = field(default_factory=lambda: Cgroups({}))
    refusal: str | None = None
    _warm: set[str] = field(default_factory=set)
    """Control groups of warm processes: no attempt names them."""

    async def around(self, request: LaunchRequest) -> LaunchRequest:
        """The request with its cell, and its control groups made. Raises ViewError."""
        if self.views is not None:
            view = await self.views.of(base_of(request))
            cell = cell_of(request, view.below_tmp, network=self.views.view.network)
            request = replace(request, cell=cell, view=view)
        walled = request.warm is not None and request.warm.walled
        wanted = Wanted(request.memory_limit_bytes, request.cpus, apart=walled)
        kind = _packages_of(request.python) if walled else ""
        groups = self._groups_of(request.folder.name, wanted, kind)
        if walled and not groups and any(each in self.groups.folders for each in cgroups.USUAL):
            # It would stay within the limits of its warm process.
            request = replace(request, warm=None, cold_reason="it has no control group of its own")
        return replace(request, cgroups=groups)

    def warm_inside(self, *, plain: bool) -> bool:
        """Whether a warm process is behind walls. ``plain``: it loads no packages."""
        return self.views is not None and not (plain and self.plain_outside)

    async def around_warm(
        self,
        home: Path,
        python: Path,
        shim: Path,
        memory_bytes: int | None,
        *,
        user_managed: bool,
        plain: bool,
    ) -> WarmWalls | None:
        """What a warm process is walled in with, as its runs are; None where it is not.

        It has ``memory_bytes`` at most, where control groups can limit memory. Raises ViewError.
        """
        if self.views is None or not self.warm_inside(plain=plain):
            return None
        Path(f"{home}.tmp").mkdir(mode=0o700, exist_ok=True)
        # What is named here lies in folders of the platform, which are covered but for that.
        agent = Path(self.attempts).parent / AGENT
        built = () if user_managed else (python.parent.parent,)
        sources = site_folders(python) if user_managed else ()
        base = Base(self.attempts, readable=(agent, *built), python=python, sources=sources)
        view = await self.views.of(base)
        cell = warm_cell(
            str(home), str(shim), self.attempts, view.below_tmp, network=self.views.view.network
        )
        # A name that is nobody's: what an earlier one's runs still hold is no part of its limit.
        name = f"{cgroups.WARM}{home.name}-{secrets.token_hex(4)}"
        groups = self._groups_of(name, Wanted(memory_bytes))
        self._warm.update(groups)
        return WarmWalls(cell, view, groups, self.attempts)

    def _groups_of(self, name: str, wanted: Wanted, kind: str = "") -> tuple[str, ...]:
        """Control groups with these limits; none where they cannot be made."""
        try:
            return tuple(str(group) for group in self.groups.take(name, wanted, kind))
        except OSError as error:
            log.warning("no control group", action="cgroup_failed", error=str(error))
            return ()

    def clear(self, groups: Sequence[str]) -> None:
        """The attempt with these control groups is gone."""
        self.groups.give_back(map(Path, groups))

    def clear_warm(self, walls: WarmWalls) -> None:
        """The warm process behind these walls is gone. First processes of its runs may go on."""
        self._warm.difference_update(walls.groups)
        if walls.groups:
            self.groups.remove(Path(walls.groups[0]).name)

    async def close(self) -> None:
        """Leave nothing of ours where no run goes on."""
        self.groups.close()
        if self.views is not None:
            await self.views.close()

    async def sweep(self, attempts: Path) -> None:
        """Remove control groups of attempts whose folder is gone."""
        if attempts.exists():
            launches = (AttemptDir(path).read_launch() or {} for path in attempts.iterdir())
            used = [group for launch in launches for group in launch.get("cgroups") or ()]
            used += self._warm
            self.groups.sweep(Path(group).name for group in used)


def _packages_of(python: Path | None) -> str:
    """The kind of runs whose warm processes have loaded the same packages."""
    return hashlib.sha256(os.fspath(python or "").encode()).hexdigest()[:8]


def isolate(settings: Settings) -> Isolation:
    """What ``settings`` ask for, as far as this machine has it. Blocks for some milliseconds."""
    if settings.launcher != "process" or settings.sandbox == "off":
        return Isolation()
    key = hashlib.sha256(str(settings.executor_dir.absolute()).encode()).hexdigest()[:12]
    groups = cgroups.find(f"{cgroup_owners.PREFIX}{key}")
    cgroup_owners.mark(groups.folders.values())
    cgroup_owners.remove_abandoned(groups.folders.values())
    view, missing = look(settings)
    log.info(
        "isolation",
        action="isolation",
        sandbox=missing or "bubblewrap",
        limits=list(groups.folders),
    )
    if view is None and settings.sandbox == "auto":
        log.warning("runs are not walled in", action="no_sandbox", missing=missing)
    if view is None and settings.sandbox == "require":
        return Isolation(
            refusal=f"this node starts no run without a sandbox (its operator set "
            f"STELLWERK_SANDBOX=require) and has none: {missing}"
        )
    attempts = settings.executor_dir.absolute() / "attempts"
    views = None if view is None else Views(view, Machine(str(attempts)))
    # A run that begins in a plain one costs a tenth less so (ADR 0030). Of another user than root a
    # run could change its interpreter's file there (see `stellwerk_shim.apart`).
    plain_outside = settings.sandbox == "auto" and os.geteuid() == 0
    return Isolation(views, str(attempts), plain_outside, groups)


def look(settings: Settings) -> tuple[View | None, str]:
    """The view that runs get, or None and why there can be none."""
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        return None, INSTALL
    view = View(
        bwrap,
        copy_configuration(settings.executor_dir.absolute() / "etc"),
        hidden=tuple(hidden(settings)),
        readable=tuple(path.absolute() for path in settings.sandbox_readable),
        libraries=libraries(os.environ),
        network=settings.sandbox_network == "host",
    )
    said = _tried(view, str(settings.executor_dir.absolute() / "attempts"))
    return (None, said) if said else (view, "")


def _tried(view: View, attempts: str) -> str:
    """Make a view and a cell as runs have it; returns why that is not possible, or ''."""
    etc = str(view.etc)  # any folder of ours will do
    mounts = [(etc, "/tmp", True), (etc, f"{attempts}/probe", False)]  # noqa: S108 - inside
    plain = {"root": attempts, "mounts": mounts, "below_tmp": [], "network": view.network}
    try:
        opened = make(view.command(Base(attempts)))
        descriptors = opened.descriptors
        command = [sys.executable, "-I", "-S", str(_ENTRY), "--probe", json.dumps(plain)]
        done = subprocess.run(
            [*command, *map(str, descriptors)],
            capture_output=True,
            timeout=PROBE_S,
            check=False,
            pass_fds=descriptors,
        )
    except ViewError as error:
        return f"bubblewrap does not work here: {error}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"the sandbox cannot be tried: {error}"
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    if done.returncode and not said:
        said = f"its trial ended with status {done.returncode}"
    return f"the sandbox does not work here: {said[-500:]}" if said else ""


def hidden(settings: Settings) -> list[Path]:
    """Folders of the platform: what a run must not see even where their place is shown."""
    files = (
        settings.nats_credentials,
        settings.s3_credentials,
        settings.scheduler_credentials,
        settings.run_token_key,
    )
    folders = [settings.executor_dir, settings.environments_dir, settings.data_dir]
    folders += [file.parent for file in files if file is not None]
    return list(outermost({path: path for path in map(Path.resolve, folders)}, within=()))


def report() -> dict[str, object]:
    """What `doctor` says; nothing is left behind."""
    with tempfile.TemporaryDirectory() as scratch:
        view, missing = look(Settings(executor_dir=Path(scratch)))
    groups = cgroups.find("stellwerk-doctor")
    groups.close()
    return {
        "sandbox": view is not None,
        "missing": missing,
        "limits": list(groups.folders),
        "no_mounts": rclone.missing(),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report()))
