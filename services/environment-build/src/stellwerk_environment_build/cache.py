"""The environment cache: one folder per environment id, whole or not there.

::

    <root>/<env_id>/             a virtual environment, requirements.lock, ready.json
    <root>/.building/<env_id>.<n>/   work in progress, renamed into place as the last step
    <root>/.locks/<env_id>       held by whoever builds this environment
    <root>/.lockfiles/<sha256>   every lock ever installed, and the bill of materials of every build
    <root>/.layers/<sha256>      digest of an image's layer, by what it holds
    <root>/.conda/               packages and indexes of conda channels
    <root>/.builder              what an engine knows this builder by
    <root>/.uv/                  the installer's own cache, on the same file system for hard links

A rename publishes an environment, so a builder that dies at any moment leaves nothing that can be
used by mistake; what it leaves in ``.building`` goes with the next ``sweep``.
"""

import asyncio
import fcntl
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from stellwerk.ids import new_id
from stellwerk_environment_build.process import kill_recorded

READY = "ready.json"
LOCK = "requirements.lock"
PID_FILE = "process"
_ENV_ID = re.compile(r"^[0-9a-f]{40}$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_LOCK_POLL_SECONDS = 0.1


class Ready(BaseModel):
    """What is known about a finished environment; ``bytes`` counts files shared by hard links too.

    ``interpreter`` is set for user-managed environments, which are nowhere in the cache;
    ``image`` is the environment's image, where images are made: ``image_layers`` on
    ``image_base``. With ``image_python``, an interpreter within the image, the environment is
    nowhere else.
    ``package_variables``: what conda packages set for runs, and what there is to say about that.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    env_id: str
    python: str | None
    interpreter: str | None = None
    image: str | None = None
    image_base: str | None = None
    image_layers: tuple[str, ...] = ()
    image_python: str | None = None
    image_variables: tuple[tuple[str, str], ...] = ()
    package_variables: tuple[tuple[str, str], ...] = ()
    variable_warnings: tuple[str, ...] = ()
    lock_digest: str | None = None
    sbom_digest: str | None = None
    packages: tuple[str, ...] = ()
    bytes: int = 0
    seconds: float = 0.0
    built_at: datetime
    builder_version: str
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Usage:
    """One environment in the cache, for whoever has to make room."""

    env_id: str
    last_used: float
    bytes: int


class EnvironmentCache:
    """The cache below ``root``, which is created with this object."""

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self.installer_cache = self.root / ".uv"
        self.conda_cache = self.root / ".conda"
        self.layers = self.root / ".layers"
        self._building = self.root / ".building"
        self._locks = self.root / ".locks"
        self._lockfiles = self.root / ".lockfiles"
        for folder in (self._building, self._locks, self._lockfiles, self.installer_cache):
            folder.mkdir(parents=True, exist_ok=True)

    def builder(self) -> str:
        """What an engine knows this builder by that others use too; it lasts as the cache does."""
        path = self.root / ".builder"
        part = path.with_name(f"{path.name}.{os.getpid()}")
        if not path.exists():
            write_fresh(part, new_id()[:12])
            with suppress(FileExistsError):  # another process on the same cache was faster
                path.hardlink_to(part)
            part.unlink()
        return path.read_text()

    def path(self, env_id: str) -> Path:
        """Where the environment is, or will be."""
        return self.root / _checked(env_id)

    def python(self, env_id: str) -> Path:
        """The environment's interpreter."""
        return self.path(env_id) / "bin" / "python"

    def lookup(self, env_id: str) -> Ready | None:
        """The environment if it can be used now, marked as used. One small read, no process."""
        try:
            ready = Ready.model_validate_json((self.path(env_id) / READY).read_bytes())
            if ready.image_python is None:
                # The link fails where the machine's interpreter below it was removed.
                self.python(env_id).stat()
            os.utime(self.path(env_id) / READY)
        except (OSError, ValidationError):
            return None
        return ready if ready.env_id == env_id else None

    def known(self, env_id: str) -> Ready | None:
        """What is known about it; does not count as use."""
        try:
            ready = Ready.model_validate_json((self.path(env_id) / READY).read_bytes())
        except (OSError, ValidationError):
            return None
        return ready if ready.env_id == env_id else None

    def last_used(self, env_id: str) -> float | None:
        """When it was looked up last, None if it is gone."""
        try:
            return (self.path(env_id) / READY).stat().st_mtime
        except FileNotFoundError:
            return None

    def contains(self, env_id: str) -> bool:
        """Whether it is there; does not count as use."""
        return (self.path(env_id) / READY).exists()

    def keep_text(self, digest: str, text: str) -> None:
        """Keep a lock or a bill of materials for good; ``digest`` is its SHA-256."""
        path = self._lockfiles / _checked_digest(digest)
        if not path.exists():
            part = path.with_name(f"{digest}.{os.getpid()}")
            write_fresh(part, text)
            part.replace(path)

    def kept_text(self, digest: str) -> str | None:
        """A lock that was installed here once, or a bill of materials."""
        try:
            return (self._lockfiles / _checked_digest(digest)).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    @asynccontextmanager
    async def lock(self, env_id: str) -> AsyncIterator[bool]:
        """Hold the environment alone among all processes; the value says if that took waiting.

        The kernel releases it when its holder dies.
        """
        descriptor = os.open(self._locks / _checked(env_id), os.O_RDWR | os.O_CREAT, 0o600)
        waited = False
        try:
            while not _try_lock(descriptor):
                waited = True
                await asyncio.sleep(_LOCK_POLL_SECONDS)
            yield waited
        finally:
            os.close(descriptor)

    def begin(self, env_id: str) -> Path:
        """A new, empty work folder; call with the lock held."""
        folder = self._building / f"{_checked(env_id)}.{os.getpid()}"
        _remove(folder)
        folder.mkdir()
        return folder

    def publish(self, finished: Path, ready: Ready) -> Path:
        """Make ``finished`` the environment; call with the lock held. Replaces an older one."""
        write_fresh(finished / READY, ready.model_dump_json(indent=1))
        target = self.path(ready.env_id)
        self.discard(ready.env_id)
        finished.rename(target)
        _sync_folder(self.root)
        return target

    def note(self, ready: Ready) -> None:
        """Replace what is known about an environment; call with the lock held."""
        path = self.path(ready.env_id) / READY
        part = path.with_name(f"{READY}.new")
        write_fresh(part, ready.model_dump_json(indent=1))
        part.replace(path)

    def discard(self, env_id: str) -> None:
        """Take the environment out of use at once, then delete its files."""
        doomed = self._building / f"{_checked(env_id)}.{os.getpid()}.old"
        _remove(doomed)
        try:
            self.path(env_id).rename(doomed)
        except FileNotFoundError:
            return
        _remove(doomed)

    def abandon(self, work: Path) -> None:
        """Delete a work folder of :meth:`begin`."""
        _remove(work)

    def sweep(self) -> int:
        """Delete what dead builders left and end what they started; how many there were.

        Folders whose environment is locked belong to a living builder and stay.
        """
        swept = 0
        for folder in list(self._building.iterdir()):
            env_id = folder.name.partition(".")[0]
            descriptor = os.open(self._locks / env_id, os.O_RDWR | os.O_CREAT, 0o600)
            try:
                if _try_lock(descriptor):
                    kill_recorded(folder / PID_FILE)
                    _remove(folder)
                    swept += 1
            finally:
                os.close(descriptor)
        return swept

    def all_ready(self) -> Iterator[Ready]:
        """What is known about every environment."""
        for folder in self.root.iterdir():
            if _ENV_ID.match(folder.name):
                try:
                    yield Ready.model_validate_json((folder / READY).read_bytes())
                except (OSError, ValidationError):
                    continue

    def usage(self) -> tuple[Usage, ...]:
        """All environments, least recently used first."""
        found = []
        for folder in self.root.iterdir():
            if _ENV_ID.match(folder.name):
                try:
                    used = (folder / READY).stat().st_mtime
                    ready = Ready.model_validate_json((folder / READY).read_bytes())
                except (OSError, ValidationError):
                    continue
                found.append(Usage(folder.name, used, ready.bytes))
        return tuple(sorted(found, key=lambda each: each.last_used))


def _checked(env_id: str) -> str:
    if not _ENV_ID.match(env_id):
        raise ValueError(f"environment id: got {env_id[:60]!r}; it is 40 hex digits")
    return env_id


def _checked_digest(digest: str) -> str:
    if not _DIGEST.match(digest):
        raise ValueError(f"digest: got {digest[:80]!r}; it is 64 hex digits")
    return digest


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def write_fresh(path: Path, text: str) -> None:
    """A new durable file at ``path``; a link that a package put there is replaced, not followed."""
    path.unlink(missing_ok=True)
    with path.open("x", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    # Something may still be writing into it for a moment; what is left goes with the next sweep.
    shutil.rmtree(folder, ignore_errors=True)
