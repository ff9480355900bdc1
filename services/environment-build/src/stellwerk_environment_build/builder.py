"""Builds environments into the cache: lock, install, byte-compile, publish.

One build of an environment at a time on a machine, whoever asks: others wait and find it done.
A build that fails, is cancelled or dies leaves nothing that could be used.
"""

import asyncio
import errno
import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stellwerk.conda_part import KnownChannels
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    NormalisedSpec,
    env_id,
    normalise,
    settled,
)
from stellwerk.override_table import Accelerator, OverrideTable, builtin
from stellwerk.runspec import EnvironmentPin
from stellwerk_environment_build import uv_command
from stellwerk_environment_build.apart_construction import ApartConstruction
from stellwerk_environment_build.build_cell import BuildCell, CellSettings, find_cell
from stellwerk_environment_build.build_log import BuildLog, Sink
from stellwerk_environment_build.cache import LOCK, EnvironmentCache, Ready
from stellwerk_environment_build.compiled_reuse import Donor
from stellwerk_environment_build.conda_channels import ChannelSettings, CondaChannels
from stellwerk_environment_build.conda_construction import CondaConstruction
from stellwerk_environment_build.conda_logins import ChannelLogins
from stellwerk_environment_build.construction import Construction, Limits
from stellwerk_environment_build.failures import BuildFailedError, Failure, classify, no_sandbox
from stellwerk_environment_build.inspection import Lock
from stellwerk_environment_build.interpreters import Interpreter, platform_tag
from stellwerk_environment_build.uv_command import IndexOptions
from stellwerk_kit.clock import Clock, SystemClock
from stellwerk_kit.failpoints import failpoint

if TYPE_CHECKING:  # its library is slow to load
    from stellwerk_environment_build.images import ImageMaker
    from stellwerk_kit.objects import ObjectStore

IDENTIFIED_KEPT = 256
_PROCESSES = "runs are plain processes here"
BUILDER_VERSION = "2"  # raise it when the same spec has to be built anew: every id changes with it


@dataclass(frozen=True)
class BuildResult:
    """``cached``: it was there already. ``seconds`` is what this call took."""

    ready: Ready
    cached: bool
    seconds: float


class Builder:
    """Builds for one cache with the given interpreters, preferred first.

    Raises UnreadableLoginsError where the file of channel logins is broken.
    """

    def __init__(
        self,
        cache: EnvironmentCache,
        interpreters: Sequence[Interpreter],
        *,
        index: IndexOptions | None = None,
        limits: Limits | None = None,
        overrides: OverrideTable | None = None,
        accelerator: Accelerator = "cpu",
        images: "ImageMaker | None" = None,
        objects: "ObjectStore | None" = None,
        channels: ChannelSettings | None = None,
        sandbox: CellSettings | None = None,
        clock: Clock | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        environ = os.environ if environ is None else environ
        self.cache = cache
        self._interpreters = {each.version: each.path for each in interpreters}
        self._index = index or IndexOptions()
        self._limits = limits or Limits()
        self.overrides = overrides or builtin()
        self._accelerator = accelerator
        self._images, self._objects = images, objects
        self._sandbox = sandbox or CellSettings()
        self._identified: dict[tuple[str, bool], tuple[NormalisedSpec, str]] = {}
        self._clock = clock or SystemClock()
        logins = ChannelLogins.read(environ.get("RATTLER_AUTH_FILE"))
        self._secrets = (*uv_command.secrets_in(environ), *logins.secrets)
        self._environ = uv_command.uv_environment(
            environ,
            cache=cache.installer_cache,
            config_file=uv_command.operator_config(environ),
        )
        self._channels = CondaChannels(
            channels or ChannelSettings(), cache.conda_cache, self._environ, self._clock
        )

    async def recognise(self, definition: EnvironmentDefinition) -> tuple[NormalisedSpec, str]:
        """:meth:`identify`, once it is known whether the channels it needs can be reached."""
        await self._channels.look(definition)
        return self.identify(definition)

    def identify(self, definition: EnvironmentDefinition) -> tuple[NormalisedSpec, str]:
        """What ``definition`` means on this machine, and its id. Raises InvalidEnvironment.

        Most runs ask for what others asked for, and only the channels come and go meanwhile.
        """
        conda = self._channels.known(definition)
        key = definition.model_dump_json(), conda is None
        if key not in self._identified:
            if len(self._identified) >= IDENTIFIED_KEPT:
                self._identified.clear()
            self._identified[key] = self._identify(definition, conda)
        return self._identified[key]

    def _identify(
        self, definition: EnvironmentDefinition, conda: KnownChannels | None
    ) -> tuple[NormalisedSpec, str]:
        spec = normalise(
            definition,
            available_pythons=tuple(self._interpreters),
            overrides=self.overrides,
            accelerator=self._accelerator,
            conda=conda,
        )
        if spec.container is not None and self._images is None:
            said = f"{spec.container.field}: {_PROCESSES}; runs of this environment are refused"
            spec = spec.model_copy(update={"warnings": (*spec.warnings, said)})
        return spec, env_id(spec, platform=platform_tag(), builder_version=BUILDER_VERSION)

    def identify_pinned(
        self, spec: NormalisedSpec, pin: EnvironmentPin
    ) -> tuple[NormalisedSpec, str]:
        """``spec``, which ``pin`` was built from, with the pin's lock; and that one's id."""
        locked = spec.model_copy(update={"lock": pin.lock_digest, "warnings": ()})
        return locked, env_id(locked, platform=platform_tag(), builder_version=BUILDER_VERSION)

    def require_containers(self, spec: NormalisedSpec) -> None:
        """Raise InvalidEnvironment where what ``spec`` stands on cannot be had here."""
        if spec.container is not None and self._images is None:
            raise InvalidEnvironment(
                "env.needs_containers",
                field=spec.container.field,
                got=spec.container.image,
                hint=f"It needs containers, and {_PROCESSES}. Ask the operator for them "
                "(STELLWERK_IMAGES=docker and STELLWERK_LAUNCHER=docker, docs/howto/compose.md), "
                "or leave it out and list the packages.",
            )

    def lookup_pinned(self, pin: EnvironmentPin) -> Ready | None:
        """The environment of ``pin`` while it is what it was: the same lock, the same image."""
        ready = self._whole(self.cache.lookup(pin.env_id))
        if ready is None or ready.lock_digest != pin.lock_digest:
            return None
        return ready if pin.image is None else ready.model_copy(update={"image": pin.image})

    def lookup(self, spec: NormalisedSpec, identity: str) -> Ready | None:
        """The environment if nothing has to be done for it; starts no process."""
        if spec.user_managed and spec.container is None:
            return self._ready(spec, identity)
        return self._whole(self.cache.lookup(identity))

    async def build(
        self, spec: NormalisedSpec, identity: str, log: Sink, *, rebuild: bool = False
    ) -> BuildResult:
        """The environment, built if it is not there or ``rebuild`` asks for it.

        Raises BuildFailedError. Cancelling it kills what it started.
        """
        started = self._clock.monotonic()
        lines = BuildLog(log, self._secrets)
        ready = None if rebuild else self.lookup(spec, identity)
        if ready is not None:
            return BuildResult(ready, cached=True, seconds=self._clock.monotonic() - started)
        async with self.cache.lock(identity) as waited:
            if waited and (ready := self._whole(self.cache.lookup(identity))) is not None:
                await lines.line("Environment was built by another process meanwhile")
                return BuildResult(ready, cached=True, seconds=self._clock.monotonic() - started)
            installed = None if rebuild else self.cache.lookup(identity)
            ready = installed or await self._build_alone(
                spec, identity, lines, started, anew=rebuild
            )
            if _lacks_sbom(ready):
                ready = await self._with_sbom(ready, self.cache.path(identity))
                self.cache.note(ready)
            if self._images is not None and ready.image_python is None:
                ready = await self._with_image(self._images, ready, lines, started, anew=rebuild)
        return BuildResult(ready, cached=False, seconds=ready.seconds)

    def _whole(self, ready: Ready | None) -> Ready | None:
        """None for an environment without bill of materials, or without image on this base."""
        if ready is None or _lacks_sbom(ready):
            return None
        if self._images is None or ready.image_python is not None:
            return ready
        made = ready.image is not None and ready.image_base == self._images.base
        return ready if made else None

    async def _with_sbom(self, ready: Ready, folder: Path) -> Ready:
        """Say what lies in ``folder``, the environment's files."""
        from stellwerk_environment_build.sbom import (  # noqa: PLC0415 - its library is slow to load
            About,
            make_sbom,
        )

        kept = self.cache.kept_text(ready.lock_digest) if ready.lock_digest else None
        lock = Lock((folder / LOCK).read_text(encoding="utf-8") if kept is None else kept)
        python = ready.python or ""
        about = About(ready.env_id, python, platform_tag(), ready.builder_version, ready.built_at)
        text = await asyncio.to_thread(make_sbom, folder, lock, about)
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.cache.keep_text(digest, text)
        return ready.model_copy(update={"sbom_digest": digest})

    async def _with_image(
        self,
        images: "ImageMaker",
        ready: Ready,
        lines: BuildLog,
        started: float,
        *,
        anew: bool,
    ) -> Ready:
        try:
            made = await images.make(ready, self.cache, lines, anew=anew)
        except BuildFailedError as error:
            await lines.line(f"Image not made: {error.failure.message}")
            raise
        failpoint("environment-build.image_made")
        seconds = round(self._clock.monotonic() - started, 3)
        ready = ready.model_copy(
            update={
                "image": made.reference,
                "image_base": images.base,
                "image_layers": made.layers,
                "seconds": seconds,
            }
        )
        self.cache.note(ready)
        await lines.line(f"Image ready in {seconds:.1f} s")
        return ready

    async def _build_alone(
        self,
        spec: NormalisedSpec,
        identity: str,
        lines: BuildLog,
        started: float,
        *,
        anew: bool,
    ) -> Ready:
        try:
            work = self.cache.begin(identity)
            try:
                if spec.container is not None:
                    ready = await self._in_container(spec, identity, lines, started, work, anew)
                else:
                    ready = await self._construct(spec, identity, lines, started, work)
            finally:
                await asyncio.to_thread(self.cache.abandon, work)
        except BuildFailedError as error:
            await lines.line(f"Environment not built: {error.failure.message}")
            raise
        except OSError as error:
            raise BuildFailedError(_of_os_error(error)) from error
        await lines.line(
            f"Environment ready: {len(ready.packages)} packages in {ready.seconds:.1f} s"
        )
        return ready

    async def _construct(
        self, spec: NormalisedSpec, identity: str, lines: BuildLog, started: float, work: Path
    ) -> Ready:
        python = f"Python {spec.python}" if spec.python else "conda packages"
        await lines.line(f"Preparing environment {identity} with {python}")
        for warning in spec.warnings:
            await lines.line(f"Warning: {warning}")
        construction = await self._construction(spec, identity, lines, work)
        lock = await construction.resolve()
        self.cache.keep_text(lock.digest, lock.text)
        failpoint("environment-build.resolved")
        await construction.create(lock)
        await construction.install(lock)
        construction.mend()
        failpoint("environment-build.installed")
        await construction.compile(lock)
        set_by_packages = await construction.activate()
        size = await construction.measure()
        ready = self._ready(spec, identity).model_copy(
            update={
                "package_variables": tuple(set_by_packages.variables.items()),
                "variable_warnings": set_by_packages.warnings,
                "python": lock.python or spec.python,
                "lock_digest": lock.digest,
                "packages": lock.packages,
                "bytes": size,
                "seconds": round(self._clock.monotonic() - started, 3),
            }
        )
        failpoint("environment-build.before_rename")
        self.cache.publish(construction.target, ready)
        return ready

    async def _construction(
        self, spec: NormalisedSpec, identity: str, lines: BuildLog, work: Path
    ) -> Construction:
        shared = self._shared(spec, lines, work)
        if spec.conda is None:
            return Construction(**shared, interpreter=self._interpreter(spec))
        prefix = self.cache.path(identity)
        return CondaConstruction(
            **shared,
            interpreter=prefix / "bin" / "python",
            channels=self._channels.settings,
            conda_cache=self.cache.conda_cache,
            prefix=prefix,
            cell=await self._cell(lines, work),
            readable=self._sandbox.readable,
        )

    async def _cell(self, lines: BuildLog, work: Path) -> BuildCell | None:
        """What a channel's interpreter is started in. Raises BuildFailedError."""
        engine = None if self._images is None else self._images.settings
        cell, missing = await asyncio.to_thread(find_cell, self._sandbox, work, engine)
        if cell is None and self._sandbox.mode == "require":
            raise BuildFailedError(no_sandbox(missing))
        if cell is None:
            await lines.line(
                f"Warning: the interpreter of the channel is started without a sandbox: {missing}"
            )
        return cell

    def _apart(self, spec: NormalisedSpec, lines: BuildLog, work: Path) -> Construction:
        any_python = next(iter(self._interpreters.values()))
        shared = self._shared(spec, lines, work)
        return ApartConstruction(**shared, interpreter=any_python, version=str(spec.python))

    def _shared(self, spec: NormalisedSpec, lines: BuildLog, work: Path) -> dict[str, Any]:
        return {
            "work": work,
            "spec": spec,
            "environ": self._environ,
            "index": self._index,
            "limits": self._limits,
            "clock": self._clock,
            "log": lines,
            "locked": self._locked(spec),
            "donors": self._donors(spec),
        }

    def _donors(self, spec: NormalisedSpec) -> tuple[Donor, ...]:
        """Environments of the same Python, the last used first."""
        if spec.python is None:
            return ()
        found = (self.cache.known(each.env_id) for each in reversed(self.cache.usage()))
        return tuple(
            Donor(path, frozenset(each.packages))
            for each in found
            if each is not None
            and (each.python, each.builder_version) == (spec.python, BUILDER_VERSION)
            # What a channel's interpreter compiled stays where it is.
            and not ((path := self.cache.path(each.env_id)) / "conda-meta").exists()
        )

    async def _in_container(
        self,
        spec: NormalisedSpec,
        identity: str,
        lines: BuildLog,
        started: float,
        work: Path,
        anew: bool,
    ) -> Ready:
        """What stands on an image or a Dockerfile; the cache holds what is known, no files."""
        from stellwerk_environment_build.container_build import (  # noqa: PLC0415 - needs docker
            ContainerBuild,
        )
        from stellwerk_environment_build.image_foreign import ForeignMaker  # noqa: PLC0415 - same

        assert self._images is not None  # noqa: S101 - require_containers was asked before
        await lines.line(f"Preparing environment {identity} in an image of its own")
        build = ContainerBuild(
            maker=ForeignMaker(self._images.settings),
            objects=self._objects,
            settle=self._settle,
            construction=lambda settled: self._apart(settled, lines, work),
            keep_lock=self.cache.keep_text,
            work=work,
            log=lines,
        )
        ready = await build.run(spec, self._ready(spec, identity), anew=anew)
        if _lacks_sbom(ready):
            ready = await self._with_sbom(ready, work / "env")
        seconds = round(self._clock.monotonic() - started, 3)
        ready = ready.model_copy(update={"seconds": seconds})
        known = work / "known"
        known.mkdir()
        failpoint("environment-build.before_rename")
        self.cache.publish(known, ready)
        return ready

    def _settle(self, spec: NormalisedSpec, python: str) -> NormalisedSpec:
        return settled(spec, python, overrides=self.overrides, accelerator=self._accelerator)

    def _locked(self, spec: NormalisedSpec) -> str | None:
        """The text of the lock that is to be installed; None where there is to be a new one."""
        if spec.lock is None:
            return None
        text = self.cache.kept_text(spec.lock)
        if text is None:
            raise BuildFailedError(
                Failure(
                    "internal",
                    "env.lock_unknown",
                    f"The recorded lock {spec.lock[:12]} is not kept here any more, so the run "
                    "cannot be repeated exactly; submit it anew.",
                    retryable=False,
                )
            )
        return text

    def _ready(self, spec: NormalisedSpec, identity: str) -> Ready:
        return Ready(
            env_id=identity,
            python=spec.python,
            interpreter=spec.interpreter,
            built_at=self._clock.now(),
            builder_version=BUILDER_VERSION,
            warnings=spec.warnings,
        )

    def _interpreter(self, spec: NormalisedSpec) -> Path:
        path = self._interpreters.get(spec.python or "")
        if path is None:
            raise BuildFailedError(
                Failure(
                    "internal",
                    "env.python",
                    f"Python {spec.python} is not on this machine any more; submit again.",
                    retryable=False,
                )
            )
        return path


def _lacks_sbom(ready: Ready) -> bool:
    return ready.lock_digest is not None and ready.sbom_digest is None


def _of_os_error(error: OSError) -> Failure:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return classify("compile", 1, "No space left on device")
    return Failure(
        "internal",
        "env.build_failed",
        f"The environment could not be written ({error.strerror}); tell the operator.",
        retryable=True,
    )
