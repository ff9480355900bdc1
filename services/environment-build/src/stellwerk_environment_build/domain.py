"""Who waits for which environment, and what they are told. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice

from stellwerk.environment_spec import EnvironmentDefinition, NormalisedSpec
from stellwerk.events import ImageBuildStarted, ImageFailed, ImageReady
from stellwerk.events.image import ImageInfo
from stellwerk_environment_build.cache import Ready
from stellwerk_environment_build.failures import Failure

MAX_RUNS_AN_EVENT = 1000
MAX_INTERRUPTIONS = 5

INTERRUPTED = Failure(
    "killed",
    "env.build_killed",
    f"The builder died {MAX_INTERRUPTIONS} times while it built this environment, often for lack "
    "of memory. Nothing was left behind; try again, or give the machine more memory.",
    retryable=True,
)


@dataclass(frozen=True)
class Wanted:
    """The environment a run asked for: its definition, and the name it has if registered."""

    definition: EnvironmentDefinition
    name: str | None = None
    version: int | None = None


@dataclass(frozen=True)
class Waiter:
    """A run that waits for an environment, with what is its own about it."""

    run_id: str
    name: str | None = None
    version: int | None = None
    variables: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def of(cls, run_id: str, wanted: Wanted, spec: NormalisedSpec) -> "Waiter":
        """The waiter for ``run_id``."""
        variables = tuple(sorted(wanted.definition.environment_variables.items()))
        return cls(run_id, wanted.name, wanted.version, variables, spec.warnings)

    def image(self, ready: Ready) -> ImageInfo:
        """The environment as this run gets it."""
        return ImageInfo(
            env_id=ready.env_id,
            name=self.name,
            version=self.version,
            python=ready.python,
            interpreter=ready.interpreter,
            image=ready.image,
            image_python=ready.image_python,
            image_variables=dict(ready.image_variables),
            package_variables=dict(ready.package_variables),
            lock_digest=ready.lock_digest,
            sbom_digest=ready.sbom_digest,
            environment_variables=dict(self.variables),
            warnings=(
                *self.warnings,
                *(ready.warnings if ready.image_python else ()),
                *ready.variable_warnings,
            ),
        )


@dataclass(frozen=True)
class Job:
    """A build that is to be done; ``build`` counts the builds of this environment."""

    env_id: str
    build: int
    spec: NormalisedSpec
    rebuild: bool = False


def started(env_id: str, build: int, run_ids: Iterable[str]) -> Iterator[ImageBuildStarted]:
    """Facts for runs whose build began or goes on; one even if nobody waits."""
    ids = iter(run_ids)
    group = tuple(islice(ids, MAX_RUNS_AN_EVENT))
    while True:
        yield ImageBuildStarted(env_id=env_id, build=build, run_ids=group)
        if not (group := tuple(islice(ids, MAX_RUNS_AN_EVENT))):
            return


def ready(
    found: Ready,
    build: int,
    waiters: Iterable[Waiter],
    *,
    cached: bool,
    seconds: float = 0.0,
    asked: int = 0,
) -> Iterator[ImageReady]:
    """Facts for ``waiters``: one for each group that gets the same image.

    ``asked``: the number of the RunPreparing that is answered at once.
    """

    def key(waiter: Waiter) -> str:
        return waiter.image(found).model_dump_json()

    for _, same in groupby(sorted(waiters, key=key), key=key):
        group = tuple(same)
        for start in range(0, len(group), MAX_RUNS_AN_EVENT):
            part = group[start : start + MAX_RUNS_AN_EVENT]
            yield ImageReady(
                env_id=found.env_id,
                build=build,
                run_ids=tuple(waiter.run_id for waiter in part),
                image=part[0].image(found),
                cached=cached,
                seconds=seconds,
                asked=asked,
            )


def failed(
    env_id: str, build: int, run_ids: Iterable[str], failure: Failure
) -> Iterator[ImageFailed]:
    """Facts for runs that cannot get their environment."""
    ids = iter(run_ids)
    while group := tuple(islice(ids, MAX_RUNS_AN_EVENT)):
        yield ImageFailed(
            env_id=env_id,
            build=build,
            run_ids=group,
            reason=failure.reason,
            message=failure.message,
            code=failure.code,
        )
