"""One environment being built, phase by phase, in a work folder of its own."""

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path

from stellwerk.environment_spec import NormalisedSpec
from stellwerk.sizes import size_text
from stellwerk_environment_build import compiled_reuse, inspection, uv_command
from stellwerk_environment_build.build_log import BuildLog
from stellwerk_environment_build.cache import LOCK, PID_FILE, write_fresh
from stellwerk_environment_build.compiled_reuse import Donor
from stellwerk_environment_build.failures import (
    BuildFailedError,
    Failure,
    Phase,
    classify,
    timed_out,
    too_many_files,
)
from stellwerk_environment_build.inspection import Lock
from stellwerk_environment_build.lock_hashes import held_to
from stellwerk_environment_build.process import Ended, Step, StepTimeoutError, run_step
from stellwerk_environment_build.uv_command import IndexOptions
from stellwerk_kit.clock import Clock

_QUICK_SECONDS = 60.0


@dataclass(frozen=True)
class Limits:
    """Bounds of the phases, in seconds. ``workers``: processes that compile, 0 is one per core.

    ``files``: the most that an environment may have.
    """

    resolve_s: float = 600.0
    install_s: float = 3600.0
    compile_s: float = 1800.0
    heartbeat_s: float = 5.0
    workers: int = 0
    files: int = 1_000_000


@dataclass(frozen=True)
class Activated:
    """``variables`` for runs, with ENVIRONMENT_FOLDER for the environment's own place."""

    variables: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Construction:
    """Everything the phases share. ``work`` is empty at first; the result is ``work/env``.

    ``locked``: the text of a lock to install as it is. ``donors``: environments of the same Python,
    whose compiled modules are used again.
    """

    work: Path
    spec: NormalisedSpec
    interpreter: Path
    environ: Mapping[str, str]
    index: IndexOptions
    limits: Limits
    clock: Clock
    log: BuildLog
    locked: str | None = None
    donors: tuple[Donor, ...] = ()

    @property
    def target(self) -> Path:
        """The environment that is being built."""
        return self.work / "env"

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.target / "bin" / "python"

    async def resolve(self) -> Lock:
        """Choose exact versions of everything, or take those of ``locked``.

        Raises BuildFailedError.
        """
        if self.locked is not None:
            recorded = Lock(self.locked)
            await self.log.line(f"[1/4] Using the recorded lock {recorded.digest[:12]}")
            return recorded
        if not self.spec.requirements:
            await self.log.line("[1/4] Nothing to resolve: no packages are wanted")
            return Lock("")
        wanted, lock = self.work / "wanted.txt", self.work / LOCK
        wanted.write_text("".join(f"{line}\n" for line in self.spec.requirements))
        await self.log.line(f"[1/4] Resolving {len(self.spec.requirements)} requirements")
        for line in self.spec.requirements:
            await self.log.line(f"      {line}")
        command = self._resolve_command(wanted, lock)
        await self._uv("resolve", command, self.limits.resolve_s, lambda: "resolving")
        return Lock(self.checked(lock.read_text()))

    def _resolve_command(self, wanted: Path, lock: Path) -> list[str]:
        return uv_command.resolve_command(wanted, lock, self.interpreter, self.index, self._pins())

    async def create(self, lock: Lock) -> None:
        """An empty virtual environment, for ``lock``."""
        del lock
        command = uv_command.create_command(self.target, self.interpreter)
        ended = await self._run("create", command, _QUICK_SECONDS, _ignore, lambda: "creating")
        require(ended, "create")

    async def install(self, lock: Lock) -> None:
        """Download and install what the lock names, hashes checked. Raises BuildFailedError."""
        total = len(lock.pins)
        write_fresh(self.target / LOCK, lock.text)
        if not total:
            await self.log.line("[2/4] Nothing to install")
            await self._require_few_files()
            return
        await self.log.line(f"[2/4] Downloading and installing {total} packages")

        def so_far() -> str:
            done = inspection.count_installed(self.target)
            return f"installed {done} of {total} packages" if done else "downloading"

        await self._uv("install", self._install_command(), self.limits.install_s, so_far)
        await self._require_few_files()

    async def _require_few_files(self) -> None:
        """Raise BuildFailedError before anything is done with files without end."""
        if await asyncio.to_thread(inspection.has_more_files, self.target, self.limits.files):
            raise BuildFailedError(too_many_files(self.limits.files))

    def mend(self) -> None:
        """Put the modules in that right what substituted packages changed, with their ``.pth``."""
        site = inspection.site_packages(self.target)
        for name in self.spec.mends:
            module = f"stellwerk_mend_{name.replace('-', '_')}"
            source = resources.files("stellwerk_environment_build.mends") / f"{module}.py"
            write_fresh(site / f"{module}.py", source.read_text(encoding="utf-8"))
            write_fresh(site / f"{module}.pth", f"import {module}\n")

    async def compile(self, lock: Lock) -> None:
        """Byte-compile all modules; those that no Python can read are left alone."""
        modules = await asyncio.to_thread(self._modules, lock)
        if not modules:
            return
        total, done = len(modules), 0
        await self.log.line(f"[3/4] Compiling {total} modules, so that imports are quick")
        started = reported = self.clock.monotonic()

        async def on_line(line: str) -> None:
            nonlocal done, reported
            done += int(line) if line.isdecimal() else 0
            now = self.clock.monotonic()
            if now - reported >= self.limits.heartbeat_s:
                reported = now
                await self.log.line(f"      … compiled {done} of {total} ({now - started:.0f} s)")

        listing = self.work / "modules"
        listing.write_bytes(b"\0".join(os.fsencode(path) for path in modules))
        workers = min(self.limits.workers or os.cpu_count() or 1, total)
        command = self._compile_command(listing, workers)
        ended = await self._run(
            "compile",
            command,
            self.limits.compile_s,
            on_line,
            lambda: f"compiled {done}",
            bare=True,
        )
        require(ended, "compile")
        await self.log.line(f"      compiled in {self.clock.monotonic() - started:.1f} s")

    def _compile_command(self, listing: Path, workers: int) -> list[str]:
        return uv_command.compile_command(self.python, listing, workers)

    def _modules(self, lock: Lock) -> list[str]:
        """Those that no other environment has compiled already."""
        donors = compiled_reuse.choose(self.donors, lock.packages)
        if not donors or self.spec.python is None:
            return inspection.modules(self.target)
        return compiled_reuse.reuse(self.target, donors, self.spec.python)

    async def activate(self) -> Activated:
        """Which variables its packages set for runs: packages of Python set none."""
        return Activated()

    async def measure(self) -> int:
        """Size in bytes, files shared by hard links included."""
        size = await asyncio.to_thread(inspection.measure, self.target)
        await self.log.line(f"[4/4] Installed size {size_text(size)}")
        return size

    def checked(self, lock: str) -> str:
        """``lock``, which names no host, with files alone that the spec allows.

        Raises BuildFailedError.
        """
        if "://" in lock:
            raise BuildFailedError(
                Failure("internal", "env.lock", "The lock names a host; it is not used.", False)
            )
        return held_to(lock, self.spec.hashes)

    def _pins(self) -> Path | None:
        """The file of versions that packages are held to."""
        if not self.spec.constraints:
            return None
        pins = self.work / "pins.txt"
        pins.write_text("".join(f"{line}\n" for line in self.spec.constraints))
        return pins

    def _install_command(self) -> list[str]:
        return uv_command.install_command(self.target / LOCK, self.python, self.index)

    async def _uv(
        self,
        phase: Phase,
        command: Sequence[str],
        limit_s: float,
        so_far: Callable[[], str],
        *,
        show: bool = True,
    ) -> Ended:
        most = 0

        async def on_line(line: str) -> None:
            nonlocal most
            again = uv_command.asked_again(line)
            if again is not None:
                if again > most:  # once, however many files it asks for
                    most = again
                    await self.log.line(f"      … the index does not answer, retry {again}")
            elif show and not line.startswith("Using Python"):
                await self.log.line(f"      {line}")

        ended = await self._run(phase, command, limit_s, on_line, so_far, reads_both=False)
        require(ended, phase)
        return ended

    async def _run(
        self,
        phase: Phase,
        command: Sequence[str],
        limit_s: float,
        on_line: Callable[[str], Awaitable[None]],
        so_far: Callable[[], str],
        *,
        reads_both: bool = True,
        bare: bool = False,
        more: Mapping[str, str] | None = None,
    ) -> Ended:
        started = self.clock.monotonic()

        async def on_silence() -> None:
            await self.log.line(f"      … {so_far()} ({self.clock.monotonic() - started:.0f} s)")

        environ = uv_command.bare_environment(self.environ) if bare else self.environ
        step = Step(
            argv=command,
            environ={**environ, **(more or {})},
            folder=self.work,
            limit_s=limit_s,
            silence_s=self.limits.heartbeat_s,
            pid_file=self.work / PID_FILE,
            reads="both" if reads_both else "stderr",
        )
        try:
            return await run_step(step, on_line, on_silence)
        except StepTimeoutError as error:
            raise BuildFailedError(timed_out(phase, limit_s)) from error


async def _ignore(_line: str) -> None:
    pass


def require(ended: Ended, phase: Phase) -> None:
    """Raise BuildFailedError for a step that did not end well."""
    if ended.returncode != 0:
        raise BuildFailedError(classify(phase, ended.returncode, ended.output))
