"""Models and what they were made from."""

from datetime import datetime
from typing import Annotated

from pydantic import StringConstraints

from stellwerk.api.base import Description, View
from stellwerk.events.dataset import ResolvedInput
from stellwerk.ids import MODEL_NAME_PATTERN
from stellwerk.manifest import Manifest
from stellwerk.runspec import RelativePath, Spec, Tags

ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]


class ModelRequest(Spec):
    """Body of ``POST /api/v1/models``: from a run's files, or from uploaded blobs."""

    name: ModelName
    run_id: str | None = None
    path: RelativePath | None = None
    manifest: Manifest | None = None
    description: Description | None = None
    tags: Tags = {}
    properties: Tags = {}
    framework: Annotated[str, StringConstraints(max_length=100)] | None = None
    framework_version: Annotated[str, StringConstraints(max_length=100)] | None = None
    datasets: dict[str, str] = {}


class ModelPatch(Spec):
    """Body of ``PATCH /api/v1/models/{name}/versions/{version}``."""

    description: Description | None = None
    tags: Tags = {}
    remove_tags: tuple[str, ...] = ()
    properties: Tags = {}


class ModelLineage(View):
    """What a model was made from.

    ``inputs`` is what its run read; ``datasets`` maps a purpose to a dataset id, as the caller
    named them.
    """

    run_id: str | None = None
    experiment: str | None = None
    env_id: str | None = None
    snapshot: str | None = None
    inputs: dict[str, ResolvedInput] = {}
    datasets: dict[str, str] = {}


class ModelView(View):
    """A model version."""

    name: str
    version: int
    model_id: str
    description: str | None = None
    tags: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    framework: str | None = None
    framework_version: str | None = None
    path: str | None = None
    manifest: str
    files: int
    bytes: int
    lineage: ModelLineage = ModelLineage()
    created_at: datetime
