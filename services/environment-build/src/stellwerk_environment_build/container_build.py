"""One environment that stands on an image or a Dockerfile of its definition, being made."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stellwerk.dockerfile import check_dockerfile
from stellwerk.environment_container import Container
from stellwerk.environment_spec import InvalidEnvironment, NormalisedSpec
from stellwerk.errors import NotFoundError, ProtocolError
from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.build_log import BuildLog
from stellwerk_environment_build.cache import Ready
from stellwerk_environment_build.construction import Construction
from stellwerk_environment_build.failures import BuildFailedError, Failure
from stellwerk_environment_build.image_failures import no_python
from stellwerk_environment_build.image_foreign import ForeignMaker, Standing, not_taken
from stellwerk_kit.objects import ObjectStore

MAX_DOCKERFILE_BYTES = 65_536
INTERPRETER = "python3"


@dataclass(frozen=True)
class ContainerBuild:
    """What the parts share. ``settle`` tells what a spec means on an image's Python.

    ``construction`` makes the phases that lay packages aside, in ``work/env``.
    """

    maker: ForeignMaker
    objects: ObjectStore | None
    settle: Callable[[NormalisedSpec, str], NormalisedSpec]
    construction: Callable[[NormalisedSpec], Construction]
    keep_lock: Callable[[str, str], None]
    work: Path
    log: BuildLog

    async def run(self, spec: NormalisedSpec, blank: Ready, *, anew: bool) -> Ready:
        """What is known of the finished environment. Raises BuildFailedError; nothing is left."""
        try:
            return await self._run(spec, blank, anew=anew)
        except BaseException:
            await self.maker.forget(blank.env_id)
            raise

    async def _run(self, spec: NormalisedSpec, blank: Ready, *, anew: bool) -> Ready:
        asked = spec.container
        assert asked is not None  # noqa: S101 - only those come here
        interpreter = spec.interpreter or INTERPRETER
        standing = await self.maker.stand(
            blank.env_id,
            asked,
            interpreter,
            await self._dockerfile(asked),
            self._context,
            self.log,
            anew=anew,
        )
        finish = self._as_it_is if spec.user_managed else self._with_packages
        ready = await finish(spec, blank, standing)
        facts = standing.facts
        return ready.model_copy(
            update={
                "image_base": standing.reference or standing.image_id,
                "image_variables": tuple((facts.variables | {"PATH": facts.path}).items()),
                "warnings": (*ready.warnings, *map(not_taken, facts.not_taken)),
                "interpreter": None,
            }
        )

    async def _as_it_is(self, spec: NormalisedSpec, blank: Ready, standing: Standing) -> Ready:
        inside = standing.facts.interpreter
        if inside is None:
            raise BuildFailedError(no_python(f"has no {spec.interpreter} on its PATH"))
        image = await self.maker.as_it_is(blank.env_id, standing, self.log)
        return blank.model_copy(
            update={
                "image": image,
                "image_python": inside,
                "python": standing.facts.python,
                "bytes": standing.bytes,
            }
        )

    async def _with_packages(self, spec: NormalisedSpec, blank: Ready, standing: Standing) -> Ready:
        try:
            settled = self.settle(spec, standing.facts.python)
        except InvalidEnvironment as error:
            raise _your_spec(error.code, str(error)) from error
        for warning in settled.warnings:
            await self.log.line(f"Warning: {warning}")
        phases = self.construction(settled)
        lock = await phases.resolve()
        self.keep_lock(lock.digest, lock.text)
        await phases.create(lock)
        await phases.install(lock)
        phases.mend()
        size = await phases.measure()
        image = await self.maker.lay(blank.env_id, standing, phases.target, self.log)
        return blank.model_copy(
            update={
                "image": image,
                "image_python": f"{IMAGE_ENVIRONMENT}/bin/python",
                "python": settled.python,
                "lock_digest": lock.digest,
                "packages": lock.packages,
                "bytes": size,
                "warnings": settled.warnings,
            }
        )

    @property
    def _context(self) -> Path:
        return self.work / "context"

    async def _dockerfile(self, asked: Container) -> str | None:
        """Its text, and the folder that it may copy from laid out; None for an image."""
        self._context.mkdir()
        if asked.context is None:
            return asked.dockerfile
        field = "build_context"
        assert self.objects is not None  # noqa: S101 - whoever makes images has a store
        try:
            manifest = await self.objects.get_manifest(asked.context.snapshot)
        except (NotFoundError, ProtocolError) as error:
            said = (
                f"{field}.snapshot: there is no snapshot {asked.context.snapshot[:12]}; upload it"
            )
            raise _your_spec("env.build_context", said) from error
        for entry in manifest.entries:
            path = self._context / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            await self.objects.fetch(entry.sha256, path, entry.size)
            path.chmod(0o755 if entry.executable else 0o644)
        path = self._context / asked.context.dockerfile
        if asked.context.dockerfile not in {entry.path for entry in manifest.entries}:
            said = f"{field}.dockerfile: the folder has no file {asked.context.dockerfile!r}"
            raise _your_spec("env.dockerfile", said)
        if path.stat().st_size > MAX_DOCKERFILE_BYTES:
            said = f"{field}.dockerfile: it has more than {MAX_DOCKERFILE_BYTES} bytes"
            raise _your_spec("env.dockerfile", said)
        text = path.read_bytes().decode(errors="replace")
        try:
            check_dockerfile(text, f"{field}.dockerfile")
        except InvalidEnvironment as error:
            raise _your_spec(error.code, str(error)) from error
        return text


def _your_spec(code: str, message: str) -> BuildFailedError:
    return BuildFailedError(Failure("your-spec", code, message, retryable=False))
