"""Datasets as lazy read-only mounts: one rclone process for each, watched, undone with its attempt.

rclone reads from the mount server of this process. It outlives us, as the run does; whoever comes
next finds it by the attempt's ``mounts.json`` and, if all is lost, by the kernel's list of mounts.
"""

import asyncio
import json
import os
import secrets
import signal
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

from stellwerk.errors import StellwerkError
from stellwerk_gpu_executor import processes
from stellwerk_gpu_executor.mount_server import MountServer
from stellwerk_gpu_executor.preparation_log import note
from stellwerk_gpu_executor.rclone import MountError, missing, mounted, start, unmount
from stellwerk_kit.objects import ObjectStore

RECORD = "mounts.json"
LOGS = "mounts"
log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted input: ``token`` opens ``manifest`` at the mount server."""

    name: str
    place: str
    manifest: str
    token: str
    pid: int
    start_ticks: int


class Mounts:
    """All mounts below ``attempts``. ``missing``: why there can be none, or ''.

    ``unavailable`` is a reason that the caller knows.
    """

    def __init__(
        self, server: MountServer, objects: ObjectStore, attempts: Path, *, unavailable: str = ""
    ) -> None:
        self._server, self._objects = server, objects
        self._attempts = attempts.absolute()
        self._watched: dict[str, dict[int, Mount]] = {}
        self.missing = unavailable or missing()

    async def add(self, folder: Path, name: str, manifest: str) -> None:
        """Mount the files of ``manifest`` as input ``name`` of an attempt. Raises MountError."""
        place = folder.absolute() / "inputs" / name
        place.mkdir(parents=True, exist_ok=True)
        (folder / LOGS).mkdir(exist_ok=True)
        token = secrets.token_urlsafe(32)
        self._server.show(token, await self._objects.get_manifest(manifest))
        try:
            pid, pidfd = await start(place, folder / LOGS / f"{name}.log", token, self._server.port)
        except (OSError, MountError) as error:
            self._server.hide(token)
            await asyncio.to_thread(unmount, place)
            raise MountError(str(error)) from error
        mount = Mount(name, str(place), manifest, token, pid, processes.start_ticks(pid))
        self._watch(folder, mount, pidfd)
        self._save(folder)

    async def adopt(self, folder: Path) -> None:
        """Serve and watch what an earlier executor mounted for an attempt that goes on."""
        for mount in _read(folder):
            pidfd = processes.open_process(mount.pid, mount.start_ticks)
            if pidfd is None:
                self._ended(folder, mount)
                continue
            self._watch(folder, mount, pidfd)
            with suppress(
                StellwerkError
            ):  # reads fail until the next start; the run is not ours to end
                self._server.show(mount.token, await self._objects.get_manifest(mount.manifest))

    async def release(self, folder: Path) -> None:
        """Undo all mounts of an attempt; its folder can be removed then."""
        watched = self._watched.pop(folder.name, {})
        for pidfd, mount in watched.items():
            asyncio.get_running_loop().remove_reader(pidfd)
            self._server.hide(mount.token)
        below = folder.absolute()
        if (below / LOGS).exists():
            for place in mounted(below):
                await asyncio.to_thread(unmount, place)
            (below / RECORD).unlink(missing_ok=True)
        for pidfd, mount in watched.items():
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            with suppress(ChildProcessError):  # one that we adopted is not our child
                await asyncio.to_thread(os.waitpid, mount.pid, 0)

    async def sweep(self, known: Collection[str]) -> None:
        """Undo mounts of attempts that are not ``known``."""
        for place in mounted(self._attempts):
            name = place.relative_to(self._attempts).parts[0]
            if name not in known:
                log.warning("orphan mount", action="mount_orphan", attempt=name)
                await asyncio.to_thread(unmount, place)

    def _watch(self, folder: Path, mount: Mount, pidfd: int) -> None:
        self._watched.setdefault(folder.name, {})[pidfd] = mount
        asyncio.get_running_loop().add_reader(pidfd, self._gone, folder, mount, pidfd)

    def _gone(self, folder: Path, mount: Mount, pidfd: int) -> None:
        asyncio.get_running_loop().remove_reader(pidfd)
        os.close(pidfd)
        self._watched.get(folder.name, {}).pop(pidfd, None)
        with suppress(ChildProcessError):
            os.waitpid(mount.pid, os.WNOHANG)
        self._ended(folder, mount)

    def _ended(self, folder: Path, mount: Mount) -> None:
        """Say it. A dead mount stays: reads end in an I/O error, not in an empty folder."""
        self._server.hide(mount.token)
        log.error("mount lost", action="mount_lost", attempt=folder.name, input=mount.name)
        note(
            folder,
            f"input {mount.name!r}: its mount has ended (rclone is gone); "
            "reads fail with 'Transport endpoint is not connected'",
        )

    def _save(self, folder: Path) -> None:
        mounts = [asdict(mount) for mount in self._watched.get(folder.name, {}).values()]
        temporary = folder / f"{RECORD}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            json.dump(mounts, out)
        temporary.rename(folder / RECORD)


def _read(folder: Path) -> list[Mount]:
    try:
        return [Mount(**each) for each in json.loads((folder / RECORD).read_bytes())]
    except (OSError, ValueError, TypeError):
        return []
