"""The hardened profile of a run's container: a launch request as the engine is told it. Pure.

Nothing here can be loosened by a run or a setting, apart from the network, which an operator may
name. docs/adr/0021-containers.md says why each line is there.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stellwerk_gpu_executor.launching import LaunchRequest

EXECUTOR, RUN, ATTEMPT, LEASE, GPUS = (
    f"stellwerk.{name}" for name in ("executor", "run", "attempt", "lease", "gpus")
)
PIDS = 4096
"""Threads count; a framework starts several for each core."""
TMP_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Profile:
    """What is the same for all runs of one executor.

    ``host`` translates our paths to those of the engine's machine where we are in a container
    ourselves; ``shim`` is the folder that holds the supervisor's package, ``notify`` that of the
    socket which wakes us; ``user`` is who runs are.
    """

    executor_id: str
    image: str
    network: str
    shm_bytes: int
    user: int
    shim: Path
    notify: Path
    host: Mapping[Path, Path]


def name_of(run_id: str, attempt: int) -> str:
    """Name of the container of an attempt: a second start of the same attempt collides."""
    return f"stellwerk-{run_id}-{attempt}"


def config(request: LaunchRequest, profile: Profile, gpus: tuple[str, ...] = ()) -> dict[str, Any]:
    """Body of the engine's request to make the container, which gets ``gpus`` and no others."""
    folder = request.folder.absolute()
    seen = [profile.shim, profile.notify, *request.readable]
    mounts = [_mount(profile, path, writable=True) for path in (folder, *request.writable)]
    mounts += [_mount(profile, path, writable=False) for path in seen]
    entry = profile.shim / "stellwerk_shim" / "__main__.py"
    return {
        "Image": request.image or profile.image,
        "Entrypoint": ["python3", "-I", "-S", str(entry)],
        "Cmd": [str(folder)],
        # Of the supervisor only: the run gets exactly what launch.json says.
        "Env": ["LC_CTYPE=C.UTF-8", "LD_PRELOAD=", "LD_LIBRARY_PATH="],
        "User": f"{profile.user}:{profile.user}",
        "WorkingDir": "/",
        "Hostname": "run",
        "Healthcheck": {"Test": ["NONE"]},
        "StopSignal": "SIGTERM",
        "Labels": {
            EXECUTOR: profile.executor_id,
            RUN: request.run_id,
            ATTEMPT: str(request.attempt),
            LEASE: "none" if request.lease is None else f"{request.lease:.3f}",
            GPUS: ",".join(gpus),
        },
        "HostConfig": _walls(request, profile, gpus) | {"Mounts": _distinct(mounts)},
    }


def _walls(request: LaunchRequest, profile: Profile, gpus: tuple[str, ...]) -> dict[str, Any]:
    walls: dict[str, Any] = {
        "Init": True,
        "ReadonlyRootfs": True,
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges=true"],
        "NetworkMode": profile.network,
        "IpcMode": "private",
        "PidsLimit": PIDS,
        "ShmSize": profile.shm_bytes,
        "Tmpfs": {"/tmp": f"rw,nosuid,nodev,noexec,size={TMP_BYTES}"},  # noqa: S108
        # Open files: the supervisor asks for as many as the engine's own limit allows.
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}],
        "RestartPolicy": {"Name": "no"},
        # The run's output goes through the supervisor's pipe; this is for its own last words.
        "LogConfig": {"Type": "json-file", "Config": {"mode": "blocking", "max-size": "1m"}},
    }
    if request.memory_limit_bytes is not None:
        walls |= {
            "Memory": request.memory_limit_bytes,
            "MemorySwap": request.memory_limit_bytes,
        }
    if request.cpus is not None:
        walls["NanoCpus"] = int(request.cpus * 1e9)
    if gpus:
        wanted = {"Driver": "nvidia", "DeviceIDs": list(gpus), "Capabilities": [["gpu"]]}
        walls["DeviceRequests"] = [wanted]
    return walls


def _mount(profile: Profile, path: Path, *, writable: bool) -> dict[str, Any]:
    """The same path inside as outside, so that nothing a run is told has to be translated."""
    path = path.absolute()
    return {
        "Type": "bind",
        "Source": str(on_host(path, profile.host)),
        "Target": str(path),
        "ReadOnly": not writable,
    }


def on_host(path: Path, host: Mapping[Path, Path]) -> Path:
    """Where the engine finds what lies at ``path`` for us."""
    above = [inside for inside in host if path.is_relative_to(inside)]
    if not above:
        return path
    inside = max(above, key=lambda each: len(each.parts))
    return host[inside] / path.relative_to(inside)


def _distinct(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One mount for each place; parents before children."""
    by_target = {mount["Target"]: mount for mount in mounts}
    return [by_target[target] for target in sorted(by_target)]
