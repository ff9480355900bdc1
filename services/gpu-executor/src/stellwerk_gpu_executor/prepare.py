"""Makes an attempt's folders: source, inputs, home; and checks that its environment is there."""

import asyncio
import errno
import os
import py_compile
import shutil
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from stellwerk.errors import NotFoundError, ProtocolError
from stellwerk.events import ResolvedInput, RunAssigned
from stellwerk.events.attempt import ExitReason
from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk.manifest import Manifest, safe_path
from stellwerk.runspec import InlineSource
from stellwerk_gpu_executor import mount_choice
from stellwerk_gpu_executor.attempt_dir import PROCESS_LOGS
from stellwerk_gpu_executor.cache import BlobCache
from stellwerk_gpu_executor.domain import Places, early_environment
from stellwerk_gpu_executor.interpreters import InterpreterError, Interpreters
from stellwerk_gpu_executor.mounts import Mounts
from stellwerk_gpu_executor.preparation_log import NAME as NOTES
from stellwerk_gpu_executor.preparation_log import note
from stellwerk_gpu_executor.rclone import MountError
from stellwerk_gpu_executor.sandbox import AGENT
from stellwerk_kit.objects import ObjectStore
from stellwerk_shim import marks

PARALLEL = 16
IN_RUN = ("stellwerk_agent", "stellwerk", "azureml")


class PrepareError(Exception):
    """The attempt cannot be started; ``reason`` is what the exit summary says."""

    def __init__(self, reason: ExitReason, message: str) -> None:
        super().__init__(message)
        self.reason: ExitReason = reason


class Preparer:
    """Lays out attempts under ``executor_dir``."""

    def __init__(
        self,
        objects: ObjectStore,
        cache: BlobCache,
        executor_dir: Path,
        environments: Path,
        *,
        mounts: Mounts,
        lazy_from: int,
        host_interpreters: bool = True,
        containers: bool = False,
    ) -> None:
        self._mounts, self._lazy_from = mounts, lazy_from
        self._objects, self._cache = objects, cache
        self._dir, self._environments = executor_dir, environments
        self._host_interpreters, self._containers = host_interpreters, containers
        self._agent = executor_dir / AGENT
        self._interpreters = Interpreters(executor_dir)
        self._manifests: dict[str, Manifest] = {}

    def install_agent(self) -> None:
        """Copy the in-run library and the SDK where runs find them, and nothing else of ours."""
        shutil.rmtree(self._agent, ignore_errors=True)
        skipped = shutil.ignore_patterns("__pycache__")
        for name in IN_RUN:
            spec = find_spec(name)  # not imported: azureml changes what errors are
            source = Path(str(spec and spec.origin)).parent
            shutil.copytree(source, self._agent / name, ignore=skipped)
        site = self._agent / "sitecustomize.py"
        shutil.copy(str(marks.__file__), site)
        py_compile.compile(str(site))  # else the first run would, and change a folder on every path

    async def interpreter(self, assigned: RunAssigned) -> str:
        """Python of the run's environment. Raises PrepareError when it is not there (any more)."""
        image = assigned.image
        if image.image_python is not None:
            if self._containers:
                return image.image_python
            raise PrepareError(
                "launch-failed",
                "the environment is an image, and this node runs plain processes: its operator "
                "sets STELLWERK_LAUNCHER=docker, or list the packages instead",
            )
        if image.interpreter is not None:
            return await self._of_this_machine(image.interpreter)
        if self._containers and image.image is not None:
            return f"{IMAGE_ENVIRONMENT}/bin/python"
        python = self._environments / image.env_id / "bin" / "python"
        if not (self._environments / image.env_id / "ready.json").exists():
            raise PrepareError(
                "environment-missing", f"environment {image.env_id[:12]} is not on this node"
            )
        return str(python.absolute())

    async def _of_this_machine(self, interpreter: str) -> str:
        """A user-managed environment's interpreter: a path, or a name on this process's PATH."""
        if not self._host_interpreters:
            raise PrepareError(
                "launch-failed",
                f"interpreter {interpreter}: this node gives runs no Python of its own (its "
                "operator set STELLWERK_HOST_INTERPRETERS=false); use one that Stellwerk builds",
            )
        try:
            return await self._interpreters.find(interpreter)
        except InterpreterError as error:
            raise PrepareError("launch-failed", f"interpreter {interpreter} {error}") from error

    def early_environment(self, env_id: str) -> tuple[str, dict[str, str]]:
        """Interpreter of an environment that was built here, and what all of its runs share."""
        python = str((self._environments / env_id / "bin" / "python").absolute())
        return python, early_environment(python, self._agent.absolute(), os.environ)

    def readable(self, assigned: RunAssigned, places: Places, folder: Path) -> tuple[Path, ...]:
        """What the run may see and not change: in-run library, environment, mounted inputs."""
        image = assigned.image
        environment = self._environments / image.env_id
        mounted = [
            folder / "inputs" / name
            for name, resolved in assigned.inputs.items()
            if resolved.mode == "mount"
        ]
        needed = image.image is None and environment.exists()
        paths = [places.agent, *([environment] if needed else []), *mounted]
        return tuple(path.absolute() for path in paths)

    async def lay_out(self, assigned: RunAssigned, folder: Path) -> Places:
        """Make the working folder and the inputs of an attempt, from scratch.

        What a run asks for may be impossible (a file inside a file, a path out of the folder):
        that ends this run, never the executor. A full disk is the node's fault, not the run's.
        """
        try:
            return await self._lay_out(assigned, folder)
        except (OSError, ValueError) as error:
            raise PrepareError(reason_of(error), f"source: {_words(error)}") from error

    async def _lay_out(self, assigned: RunAssigned, folder: Path) -> Places:
        work, home, temporary = folder / "work", folder / "home", folder / "tmp"
        await self._mounts.release(folder)
        if not _made(folder, [work, home, temporary]):
            await asyncio.to_thread(_fresh, folder, [work, home, temporary])
        if assigned.spec.distributed is not None:
            (folder / PROCESS_LOGS).mkdir(exist_ok=True)
        started = time.monotonic()
        await self._source(assigned, work)  # first: an input may not be written through
        sourced = time.monotonic()
        paths = await self._inputs(assigned, folder / "inputs", work)
        seconds = {"code": sourced - started, "data": time.monotonic() - sourced}
        produced = _outputs(assigned, folder, work)
        if assigned.spec.script is not None and not (work / assigned.spec.script).is_file():
            raise PrepareError(
                "launch-failed", f"script {assigned.spec.script!r} is not in the source"
            )
        for name in ("outputs", "logs"):
            with suppress(FileExistsError):
                os.mkdir(f"{work}/{name}")  # noqa: PTH102
        return Places(
            work,
            home,
            temporary,
            self._agent.absolute(),
            paths,
            produced,
            process_logs=(folder / PROCESS_LOGS).absolute(),
            seconds=seconds if assigned.inputs else {"code": seconds["code"]},
        )

    async def _source(self, assigned: RunAssigned, work: Path) -> None:
        source = assigned.spec.source
        if source is None:
            return
        if isinstance(source, InlineSource):
            for name, text in source.inline.items():
                target = work / safe_path(name)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_text(text)
            return
        try:
            manifest = await self._manifest(source.snapshot)
            await self._each(manifest, work, link=False)
        except (NotFoundError, ProtocolError) as error:
            raise PrepareError("launch-failed", f"source snapshot: {error}") from error

    async def _inputs(self, assigned: RunAssigned, folder: Path, work: Path) -> dict[str, str]:
        paths = {}
        for name, resolved in assigned.inputs.items():
            if resolved.mode == "direct":
                paths[name] = resolved.dataset_id
                continue
            try:
                lazy = assigned.spec.inputs[name].lazy if name in assigned.spec.inputs else None
                paths[name] = await self._input(name, resolved, folder / name, work, lazy)
            except (NotFoundError, ProtocolError) as error:
                raise PrepareError("input-failed", f"input {name!r}: {error}") from error
            except OSError as error:
                reason = reason_of(error, "input-failed")
                raise PrepareError(reason, f"input {name!r}: {_words(error)}") from error
        return paths

    async def _input(
        self, name: str, resolved: ResolvedInput, folder: Path, work: Path, lazy: bool | None
    ) -> str:
        manifest = await self._manifest(resolved.manifest)
        if resolved.mode != "mount" or not await self._mount(name, resolved, folder, lazy):
            folder.mkdir(parents=True, exist_ok=True)
            await self._each(manifest, folder, link=resolved.mode == "mount")
        if resolved.path is not None:
            folder = _place(resolved.path, folder, work)
        return str(folder / manifest.entries[0].path) if resolved.single_file else str(folder)

    async def _mount(
        self, name: str, resolved: ResolvedInput, folder: Path, lazy: bool | None
    ) -> bool:
        """Mount an input lazily where that is better; says what was chosen and why."""
        manifest, attempt = await self._manifest(resolved.manifest), folder.parent.parent
        choice = mount_choice.choose(
            manifest,
            {each.sha256 for each in manifest.entries if self._cache.has(each.sha256, each.size)},
            forced=lazy,
            unavailable=self._mounts.missing,
            threshold=self._lazy_from,
        )
        why, made = choice.why, False
        if choice.lazy:
            try:
                await self._mounts.add(attempt, name, resolved.manifest)
                made = True
            except MountError as error:
                why = f"fetched before the start: it cannot be mounted, {error}"
        note(attempt, f"input {name!r}: {why}")
        return made

    async def _each(self, manifest: Manifest, folder: Path, *, link: bool) -> None:
        gate = asyncio.Semaphore(PARALLEL)
        bring = self._cache.link if link else self._cache.copy

        async def one(index: int) -> None:
            async with gate:
                entry = manifest.entries[index]
                await bring(entry, folder / entry.path)

        await asyncio.gather(*(one(index) for index in range(len(manifest.entries))))

    async def _manifest(self, digest: str) -> Manifest:
        """Manifests are immutable and small: the last few stay in memory."""
        if digest not in self._manifests:
            if len(self._manifests) >= 64:
                self._manifests.pop(next(iter(self._manifests)))
            self._manifests[digest] = await self._objects.get_manifest(digest)
        return self._manifests[digest]


def produced_folders(assigned: RunAssigned, folder: Path) -> dict[str, Path]:
    """Where the outputs of an attempt are collected, by name."""
    return {name: folder / "produced" / name for name in assigned.spec.outputs}


def _outputs(assigned: RunAssigned, folder: Path, work: Path) -> dict[str, str]:
    paths = {}
    for name, target in produced_folders(assigned, folder.absolute()).items():
        target.mkdir(parents=True)
        place = assigned.spec.outputs[name].path_on_compute
        try:
            paths[name] = str(target if place is None else _place(place, target, work))
        except (ProtocolError, OSError) as error:
            raise PrepareError("launch-failed", f"output {name!r}: {error}") from error
    return paths


def reason_of(error: Exception, otherwise: ExitReason = "launch-failed") -> ExitReason:
    """Whose fault it is that a file could not be written."""
    full = isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}
    return "disk-full" if full else otherwise


def _words(error: OSError | ValueError) -> str:
    """What went wrong, without the folders of this machine."""
    if isinstance(error, OSError):
        what = repr(Path(str(error.filename)).name) if error.filename else "a file"
        return f"{what} cannot be written: {error.strerror}"
    return str(error)


def _made(folder: Path, subfolders: list[Path]) -> bool:
    """Make them in an untouched folder; False if something is there: an interrupted preparation."""
    if not set(os.listdir(folder)) <= {"uploads"}:  # noqa: PTH208 - half its cost
        return False
    for path in subfolders:
        os.mkdir(path, 0o700)  # noqa: PTH102
    return True


def _fresh(folder: Path, subfolders: list[Path]) -> None:
    """Remove what an interrupted preparation left, make the folders anew."""
    notes = folder / Path(NOTES).parent
    for path in [*subfolders, folder / "inputs", folder / "produced", notes]:
        if path.exists():
            shutil.rmtree(path, ignore_errors=True)
    for path in subfolders:
        path.mkdir(mode=0o700)


def _place(path: str, folder: Path, work: Path) -> Path:
    """Make ``folder`` appear at ``path``, relative to the working folder."""
    try:
        target = work / safe_path(path.removeprefix("./").rstrip("/"))
    except ValueError as error:
        raise ProtocolError(f"{error}; give a path relative to the run's folder") from error
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        raise ProtocolError(f"path {path!r} is taken by the source")
    target.symlink_to(folder.absolute())
    return target
