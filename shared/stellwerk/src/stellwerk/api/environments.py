"""Environments, their builds, and what of them is thrown away."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from stellwerk.api.base import Count, View
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.runspec import Name, Spec

Label = Annotated[str, StringConstraints(min_length=1, max_length=100)]
"""Name of an extra or of a dependency group."""


class EnvironmentRequest(Spec):
    """Body of ``POST /api/v1/environments``: give exactly one form of definition.

    ``uv_lock``, ``extras`` and ``groups`` belong to ``pyproject``: the lock of the project, and
    the optional dependencies and dependency groups that are wanted.
    """

    name: Name
    definition: EnvironmentDefinition | None = None
    conda_yaml: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    requirements: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    pyproject: Annotated[str, StringConstraints(max_length=65_536)] | None = None
    uv_lock: Annotated[str, StringConstraints(max_length=4_194_304)] | None = None
    extras: Annotated[tuple[Label, ...], Field(max_length=100)] = ()
    groups: Annotated[tuple[Label, ...], Field(max_length=100)] = ()


class EnvironmentView(View):
    """A registered environment version; ``state`` is its build's.

    ``curated``: it comes with the platform and cannot be overwritten.
    """

    name: str
    version: int
    curated: bool = False
    description: str = ""
    env_id: str
    definition: EnvironmentDefinition
    created_at: datetime
    created: bool = True
    state: Literal["not-built", "building", "ready", "failed"] = "not-built"
    warnings: tuple[str, ...] = ()


class BuildView(View):
    """State of one environment's build."""

    env_id: str
    build: int
    state: Literal["not-built", "building", "ready", "failed"]
    python: str | None = None
    packages: tuple[str, ...] = ()
    lock_digest: str | None = None
    sbom_digest: str | None = None
    image: str | None = None
    bytes: int | None = None
    seconds: float | None = None
    reason: str | None = None
    message: str | None = None
    warnings: tuple[str, ...] = ()


class PruneRequest(Spec):
    """Body of ``POST /api/v1/environments/prune``; give an age, a size, or both.

    First goes what no run wanted for ``older_than_s``, then what was not wanted for longest, until
    all together have at most ``max_bytes``. What live runs use stays. ``from_registry``: their
    images leave the registry too, and reruns on exactly these are no longer possible.
    """

    older_than_s: Annotated[float, Field(ge=0)] | None = None
    max_bytes: Count | None = None
    dry_run: bool = False
    from_registry: bool = False

    @model_validator(mode="after")
    def _says_what(self) -> Self:
        if self.older_than_s is None and self.max_bytes is None:
            raise ValueError("give older_than_s, max_bytes, or both")
        return self


class PrunedEnvironment(View):
    """One that left; ``bytes`` counts files shared with others too."""

    env_id: str
    bytes: int
    idle_s: float


class PruneView(View):
    """What left, or would with ``dry_run``, and what stays."""

    removed: tuple[PrunedEnvironment, ...] = ()
    freed_bytes: int = 0
    kept: int = 0
    kept_bytes: int = 0
    dry_run: bool = False
