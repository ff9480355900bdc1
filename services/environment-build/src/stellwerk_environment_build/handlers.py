"""What the service answers: runs that are being prepared, and requests about environments."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stellwerk.api import (
    BuildView,
    EnvironmentRequest,
    EnvironmentView,
    Page,
    PruneRequest,
    PruneView,
)
from stellwerk.curated import curated_environment, curated_environments
from stellwerk.environment_spec import (
    EnvironmentDefinition,
    InvalidEnvironment,
    NormalisedSpec,
    check,
    from_conda_yaml,
    from_packages,
    from_pyproject,
    from_requirements,
)
from stellwerk.errors import ConflictError, NotFoundError, ProtocolError, UserError
from stellwerk.events import Envelope, RunPreparing
from stellwerk.runspec import EnvironmentPin, EnvironmentReference
from stellwerk_environment_build import domain
from stellwerk_environment_build.builder import Builder
from stellwerk_environment_build.cache import Ready
from stellwerk_environment_build.domain import Waiter, Wanted
from stellwerk_environment_build.failures import Failure, untold
from stellwerk_environment_build.pruning import Pruner
from stellwerk_environment_build.pruning import Wanted as Pruned
from stellwerk_environment_build.registry import EnvironmentStore
from stellwerk_environment_build.store import BuildStore
from stellwerk_kit.rpc import RawReply
from stellwerk_kit.service import Trigger
from stellwerk_kit.voice import Voice


@dataclass(frozen=True)
class _Meant:
    """What has to be installed, its id, and how to see whether it is there."""

    spec: NormalisedSpec
    env_id: str
    lookup: Callable[[], Ready | None]


class _Request(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NamedEnvironment(_Request):
    """A registered environment; ``version`` None is the latest."""

    name: str
    version: int | None = None


class ListEnvironments(_Request):
    """A page of versions: of one name, of the curated ones, or of all others."""

    name: str | None = None
    curated: bool = False
    limit: int = Field(50, ge=1, le=1000)
    cursor: str | None = None


class StartBuild(NamedEnvironment):
    """Build now; ``rebuild`` even if it is there already."""

    rebuild: bool = False


class Prune(PruneRequest):
    """``in_use``: environments of live runs."""

    in_use: tuple[str, ...] = ()


class GetBuild(_Request):
    """An environment by its id."""

    env_id: str


class ReadRecord(_Request):
    """A lock or a bill of materials from a byte on, by its SHA-256."""

    digest: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    offset: int = Field(0, ge=0)


@dataclass
class Handlers:
    """The consumed event and the verbs. ``builds_due`` wakes the reconciler."""

    builder: Builder
    builds: BuildStore
    registry: EnvironmentStore
    pruner: Pruner
    builds_due: Trigger
    voice: Voice

    async def on_run_preparing(self, envelope: Envelope) -> None:
        """Answer ImageReady or ImageFailed at once, or let the run wait for a build."""
        event = envelope.event
        assert isinstance(event, RunPreparing)  # noqa: S101 - dispatched by type
        try:
            wanted = await self._wanted(event.environment)
            meant = await self._meant(wanted.definition, event.environment_pin)
        except InvalidEnvironment as error:
            await self._refuse(envelope.id, event.run_id, error.code, str(error))
            return
        except NotFoundError as error:
            await self._refuse(envelope.id, event.run_id, error.code, error.message)
            return
        waiter = Waiter.of(event.run_id, wanted, meant.spec)
        try:
            await self._answer(envelope, meant, waiter)
        except ProtocolError as error:
            await self.builds.refuse(envelope.id, event.run_id, untold(error))

    async def _answer(self, question: Envelope, meant: _Meant, waiter: Waiter) -> None:
        """At once or by a build. Raises ProtocolError where an event cannot hold the answer."""
        if await self._answered_at_once(question, meant, waiter):
            return
        cause, asked = question.id, question.sequence or 0
        if await self.builds.request(
            cause, meant.spec, meant.env_id, waiter, meant.lookup, asked=asked
        ):
            self.builds_due.hint()

    async def _answered_at_once(self, question: Envelope, meant: _Meant, waiter: Waiter) -> bool:
        """Whether the run was told that its environment is there.

        Nobody has to remember that: to the same question the answer is the same fact.
        """
        if (found := meant.lookup()) is None:
            return False
        number = await self.builds.number(meant.env_id)
        asked = question.sequence or 0
        for there in domain.ready(found, number, [waiter], cached=True, asked=asked):
            if not await self.voice.say(there, causation_id=question.id):
                return False
        return True

    async def register_curated(self) -> None:
        """Have the curated environments registered; new pins are a new version of theirs."""
        for each in curated_environments().values():
            with suppress(InvalidEnvironment):  # a machine without any Python has none
                identified = await self.builder.recognise(each.definition)
                await self.registry.register(each.name, each.definition, *identified)

    async def register(self, request: EnvironmentRequest) -> EnvironmentView:
        """Verb ``environment-register``."""
        self._refuse_curated(request.name)
        try:
            definition = _definition(request)
            spec, env_id = await self.builder.recognise(definition)
        except InvalidEnvironment as error:
            raise UserError(str(error), code=error.code, field=error.field) from error
        view = await self.registry.register(request.name, definition, spec, env_id)
        return (await self._with_states(view))[0]

    async def get(self, request: NamedEnvironment) -> EnvironmentView:
        """Verb ``environment-get``."""
        view = await self._registered(request.name, request.version)
        with suppress(InvalidEnvironment):  # the overrides may have changed since it was registered
            spec, env_id = await self.builder.recognise(view.definition)
            view = view.model_copy(update={"env_id": env_id, "warnings": spec.warnings})
        return (await self._with_states(view))[0]

    async def list(self, request: ListEnvironments) -> Page[EnvironmentView]:
        """Verb ``environment-list``."""
        page = await self.registry.list(
            request.name, request.limit, request.cursor, curated=request.curated
        )
        return Page(items=await self._with_states(*page.items), next_cursor=page.next_cursor)

    async def start_build(self, request: StartBuild) -> BuildView:
        """Verb ``build-start``."""
        view = await self._registered(request.name, request.version)
        try:
            spec, env_id = await self.builder.recognise(view.definition)
            self.builder.require_containers(spec)
        except InvalidEnvironment as error:
            raise UserError(str(error), code=error.code, field=error.field) from error
        found = self.builder.lookup(spec, env_id)
        nothing_to_build = spec.user_managed and spec.container is None
        if found is not None and (nothing_to_build or not request.rebuild):
            return BuildView(build=0, state="ready", **found.model_dump(include=_SHARED_FIELDS))
        started = await self.builds.start(spec, env_id, rebuild=request.rebuild)
        self.builds_due.hint()
        return started

    async def prune(self, request: Prune) -> PruneView:
        """Verb ``environment-prune``."""
        busy = {job.env_id for job in await self.builds.due()}
        wanted = Pruned(
            older_than_s=request.older_than_s,
            max_bytes=request.max_bytes,
            in_use=busy | set(request.in_use),
            dry_run=request.dry_run,
            from_registry=request.from_registry,
        )
        return await self.pruner.prune(wanted)

    async def get_build(self, request: GetBuild) -> BuildView:
        """Verb ``build-get``."""
        return await self.builds.get(request.env_id)

    async def read_record(self, request: ReadRecord) -> RawReply:
        """Verb ``record-read``: a piece of a lock or a bill of materials, by its digest."""
        text = await asyncio.to_thread(self.builder.cache.kept_text, request.digest)
        if text is None:
            raise NotFoundError(
                f"digest: nothing was kept under {request.digest[:12]}", code="record.not_found"
            )
        content = text.encode()
        end = min(request.offset + _PIECE_BYTES, len(content))
        closed = "1" if end == len(content) else "0"
        headers = {"Sw-Next-Offset": str(end), "Sw-Closed": closed}
        return RawReply(content[request.offset : end], headers)

    async def _meant(
        self, definition: EnvironmentDefinition, pin: EnvironmentPin | None
    ) -> "_Meant":
        """What is to be had: what the definition means today, or what a pin recorded."""
        builder = self.builder
        if pin is None:
            spec, env_id = await builder.recognise(definition)
            builder.require_containers(spec)
            return _Meant(spec, env_id, lambda: builder.lookup(spec, env_id))
        spec, known = await self.builds.spec(pin.env_id), await self.builds.known(pin.env_id)
        if pin.image is not None and known is not None and known.image_python is not None:
            image = known.model_copy(update={"image": pin.image})

            def recorded() -> Ready:
                builder.cache.lookup(pin.env_id)  # marks it as used, so that no prune takes it
                return image

            return _Meant(spec, pin.env_id, recorded)
        locked, identity = builder.identify_pinned(spec, pin)
        return _Meant(
            locked,
            identity,
            lambda: builder.lookup_pinned(pin) or builder.lookup(locked, identity),
        )

    async def _wanted(self, asked: EnvironmentReference | EnvironmentDefinition) -> Wanted:
        if isinstance(asked, EnvironmentDefinition):
            return Wanted(asked)
        view = await self._registered(asked.name, asked.version)
        return Wanted(view.definition, view.name, view.version)

    async def _registered(self, name: str, version: int | None) -> EnvironmentView:
        """A registered environment; a curated one of older projects is registered when asked for.

        Versions of curated environments were the vendor's: whichever is asked for gives ours.
        """
        if (ours := curated_environment(name)) is not None:
            return await self.registry.get(ours.name, version)
        table = self.builder.overrides
        packages = table.curated_packages(name)
        if packages is None:
            return await self.registry.get(name, version)
        name = table.curated_name(name)
        with suppress(NotFoundError):
            return await self.registry.get(name, None)
        definition = from_packages(packages)
        return await self.registry.register(
            name, definition, *(await self.builder.recognise(definition))
        )

    def _refuse_curated(self, name: str) -> None:
        if curated_environment(name) or self.builder.overrides.curated_packages(name) is not None:
            raise ConflictError(
                f"name: {name!r} is a curated environment and cannot be overwritten; choose "
                "another name (Environment.clone gives a copy to change)",
                code="env.curated",
                field="name",
            )

    async def _refuse(self, event_id: str, run_id: str, code: str, message: str) -> None:
        failure = Failure("your-spec", code, message, retryable=False)
        await self.builds.refuse(event_id, run_id, failure)

    async def _with_states(self, *views: EnvironmentView) -> tuple[EnvironmentView, ...]:
        known = await self.builds.states([view.env_id for view in views])
        return tuple(
            view.model_copy(update={"state": self._state(view, known.get(view.env_id))})
            for view in views
        )

    def _state(self, view: EnvironmentView, recorded: str | None) -> str:
        if recorded in {"building", "failed"}:
            return str(recorded)
        asked = view.definition
        stands_on = asked.image or asked.dockerfile or asked.build_context
        bare = asked.user_managed and stands_on is None
        there = bare or self.builder.cache.contains(view.env_id)
        return "ready" if there else "not-built"


_PIECE_BYTES = 256 * 1024
_SHARED_FIELDS = {
    "env_id", "python", "packages", "lock_digest", "sbom_digest", "image", "bytes", "seconds",
    "warnings",
}  # fmt: skip


def _definition(request: EnvironmentRequest) -> EnvironmentDefinition:
    forms = (request.definition, request.conda_yaml, request.requirements, request.pyproject)
    given = [form for form in forms if form is not None]
    if len(given) != 1:
        raise InvalidEnvironment(
            "env.field",
            field="environment",
            got=f"{len(given)} of definition, conda_yaml, requirements, pyproject",
            hint="Give exactly one of them.",
        )
    if request.conda_yaml is not None:
        return from_conda_yaml(request.conda_yaml)
    if request.pyproject is not None:
        return from_pyproject(
            request.pyproject, lock=request.uv_lock, extras=request.extras, groups=request.groups
        )
    if request.uv_lock is not None or request.extras or request.groups:
        raise InvalidEnvironment(
            "env.field",
            field="pyproject",
            hint="uv_lock, extras and groups belong to a pyproject; give its text too.",
        )
    if request.requirements is not None:
        return from_requirements(request.requirements)
    assert request.definition is not None  # noqa: S101 - the one that is given
    check(request.definition)
    return request.definition
