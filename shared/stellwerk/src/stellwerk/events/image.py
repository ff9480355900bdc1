"""Facts of the image aggregate: prepared environments. Owner: environment-build.

The aggregate is the environment, not the run: one build serves any number of runs, and
``run_ids`` names those that waited (at most 1,000 in one event; more waiters, more events).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stellwerk.events.base import Event, event

RunIds = Annotated[tuple[str, ...], Field(max_length=1000)]
BuildFailure = Literal[
    "your-spec", "index-unreachable", "disk-full", "hash-mismatch", "timeout", "killed", "internal"
]


IMAGE_ENVIRONMENT = "/opt/environment"
"""Where an image holds its environment."""
ENVIRONMENT_FOLDER = "@STELLWERK_ENVIRONMENT@"
"""Stands in ``package_variables`` for the folder of the environment, wherever a run has it."""


class ImageInfo(BaseModel):
    """What a node needs to know to run in an environment.

    ``interpreter`` is set for user-managed environments only; otherwise the interpreter lies in
    the environment cache under ``env_id``. ``lock_digest`` and ``sbom_digest`` are the SHA-256 of
    its lock and of its bill of materials (CycloneDX). ``image`` names an image that holds the
    environment at :data:`IMAGE_ENVIRONMENT`, by digest or id, for nodes whose runs are containers.
    With ``image_python`` there is nothing but that image: it is the interpreter within it, and
    ``image_variables`` are what the image sets. ``package_variables`` are what the environment's
    conda packages set when it is activated.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    env_id: str
    name: str | None = None
    version: int | None = None
    python: str | None = None
    interpreter: str | None = None
    image: str | None = None
    image_python: str | None = None
    image_variables: dict[str, str] = {}
    package_variables: dict[str, str] = {}
    lock_digest: str | None = None
    sbom_digest: str | None = None
    environment_variables: dict[str, str] = {}
    warnings: tuple[str, ...] = ()


class _ForRuns(Event):
    env_id: str
    build: int = 1
    run_ids: RunIds = ()

    def discriminator(self) -> str:
        """Build number and the first waiter: each group of waiters gets its own fact."""
        return f"{self.build}/{self.run_ids[0]}" if self.run_ids else str(self.build)


@event(aggregate="image", verb="build-started", owner="environment-build", key="env_id")
class ImageBuildStarted(_ForRuns):
    """A build began, or these runs joined one that is under way.

    Its log is on ``sw.log.<env_id>.<build>.build``.
    """


@event(aggregate="image", verb="ready", owner="environment-build", key="env_id")
class ImageReady(_ForRuns):
    """The environment can be used by these runs. ``cached``: nothing had to be built for them.

    ``asked``: the number of the RunPreparing that this answers at once, 0 where a build's end does.
    """

    image: ImageInfo
    cached: bool
    seconds: float = 0.0
    asked: int = 0

    def discriminator(self) -> str:
        """A run that asks a second time, as its node lacked the environment, gets another fact."""
        return "/".join([super().discriminator(), *([str(self.asked)] if self.asked else [])])


@event(aggregate="image", verb="failed", owner="environment-build", key="env_id")
class ImageFailed(_ForRuns):
    """The environment cannot be prepared; ``reason`` says whose fault it is."""

    reason: BuildFailure
    message: str
    code: str = "env.build_failed"
