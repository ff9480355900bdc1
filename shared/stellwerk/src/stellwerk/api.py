"""Bodies of the REST API, shared by gateway, SDK and the services' request/reply verbs.

Requests refuse unknown fields; views ignore them, so that an older client reads a newer server.
Times are RFC 3339 UTC, durations seconds, sizes bytes.
"""

from datetime import datetime
from typing import Annotated, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.events.attempt import ExitSummary, StartInfo
from stellwerk.events.dataset import ProducedDataset, ResolvedInput
from stellwerk.events.image import ImageInfo
from stellwerk.ids import MODEL_NAME_PATTERN
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk.runspec import ComputeName, Digest, Name, RelativePath, RunSpec, Spec, Tags
from stellwerk.tabular_definition import TabularDefinition

T = TypeVar("T")
ModelName = Annotated[str, StringConstraints(pattern=MODEL_NAME_PATTERN)]
Description = Annotated[str, StringConstraints(max_length=10_000)]
Count = Annotated[int, Field(ge=0)]


class View(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Page(View, Generic[T]):
    """One page; pass ``next_cursor`` as ``cursor`` for the next, None at the end."""

    items: tuple[T, ...]
    next_cursor: str | None = None


class Problem(View):
    """RFC 9457 problem+json; ``code`` is stable."""

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    code: str
    field: str | None = None
    retry_after_s: float | None = None


# --- runs -------------------------------------------------------------------------------------


class RunRequest(Spec):
    """Body of ``POST /api/v1/runs``."""

    experiment: Name
    spec: RunSpec
    parent_run_id: str | None = None


class QueueView(View):
    """Why a run waits: ``position`` from 1, ``unblock`` what would let it go on."""

    pool: str
    position: int
    reason: str
    message: str
    unblock: str


class ErrorView(View):
    """Why a run failed."""

    code: str
    message: str


class RunView(View):
    """A run as users see it.

    ``phases`` maps preparing, scaling, starting, running, post_processing to seconds, growing
    while the phase lasts. ``sequence`` is the last event's number. ``outputs`` are known a moment
    after the end. ``spec`` is left out of lists.
    """

    run_id: str
    experiment: str
    status: str
    kind: Literal["script", "interactive"] = "script"
    sequence: int = 0
    number: int | None = None
    display_name: str | None = None
    submitted_by: str | None = None
    parent_run_id: str | None = None
    target: str
    attempt: int = 0
    node_id: str | None = None
    submitted_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    phases: dict[str, float] = {}
    queue: QueueView | None = None
    error: ErrorView | None = None
    warnings: tuple[str, ...] = ()
    tags: dict[str, str | None] = {}
    properties: dict[str, str | None] = {}
    image: ImageInfo | None = None
    inputs: dict[str, ResolvedInput] = {}
    outputs: dict[str, ProducedDataset] = {}
    start: StartInfo | None = None
    exit: ExitSummary | None = None
    outputs_manifest: str | None = None
    archive_manifest: str | None = None
    spec: RunSpec | None = None


class RunEventView(View):
    """One entry of a run's status stream; ``sequence`` is its id for resuming."""

    sequence: int
    type: str
    time: datetime
    status: str
    attempt: int
    message: str
    phases: dict[str, float] = {}
    data: dict[str, object] = {}


class RunPatch(Spec):
    """Tags are merged (None stays a value), properties may be added but never changed."""

    tags: Tags = {}
    properties: Tags = {}
    remove_tags: tuple[str, ...] = ()
    display_name: str | None = None


class LogView(View):
    """One log of a run. ``closed`` logs have their final length and sha256."""

    path: str
    bytes: int
    closed: bool = False
    sha256: str | None = None


class RunFileView(View):
    """One file of a run; ``sha256`` is None for a log that still grows."""

    path: str
    size: int
    sha256: str | None = None


class MetricPoint(View):
    """One logged value. That of an image or another artifact is the name of its file."""

    name: str
    kind: Literal["scalar", "list", "row", "table", "image", "artifact"]
    value: object
    step: int | None = None
    time: datetime
    sequence: int


# --- blobs and snapshots ----------------------------------------------------------------------


class BlobRef(Spec):
    """A blob the client has."""

    sha256: Digest
    size: Count


class BlobPlanRequest(Spec):
    """Body of ``POST /api/v1/blobs``: which of these are missing."""

    blobs: Annotated[tuple[BlobRef, ...], Field(max_length=2000)]


class BlobUpload(View):
    """Where to PUT one missing blob, within 15 minutes."""

    sha256: str
    url: str


class BlobPlan(View):
    """The missing ones; everything else is stored already."""

    missing: tuple[BlobUpload, ...]


class SnapshotRequest(Spec):
    """Body of ``POST /api/v1/snapshots``: a source tree whose blobs are uploaded."""

    manifest: Manifest


class SnapshotView(View):
    """A stored source snapshot."""

    digest: str
    files: int
    bytes: int


# --- datasets ---------------------------------------------------------------------------------


class DatasetFiles(Spec):
    """Files whose blobs are uploaded.

    ``base`` is the folder taken off their paths; None: the one that all of them share.
    """

    kind: Literal["files"] = "files"
    entries: Annotated[tuple[ManifestEntry, ...], Field(min_length=1, max_length=100_000)]
    base: RelativePath | None = None


class DatasetUrls(Spec):
    """Web addresses, fetched by the platform through its egress guard when first read."""

    kind: Literal["urls"] = "urls"
    urls: Annotated[
        tuple[Annotated[str, StringConstraints(min_length=8, max_length=4096)], ...],
        Field(min_length=1, max_length=1000),
    ]


class DatastorePath(Spec):
    """A file or folder (or glob) of a datastore."""

    datastore: Name = "workspaceblobstore"
    path: RelativePath


class DatasetPaths(Spec):
    """Datastore paths, pinned to what lies there when the dataset is made."""

    kind: Literal["datastore"] = "datastore"
    paths: Annotated[tuple[DatastorePath, ...], Field(min_length=1, max_length=1000)]


class DatasetPart(Spec):
    """The files of another dataset, or those of them at ``paths``."""

    kind: Literal["dataset"] = "dataset"
    dataset_id: Annotated[str, StringConstraints(min_length=1, max_length=40)]
    paths: (
        Annotated[
            tuple[Annotated[str, StringConstraints(min_length=1, max_length=4096)], ...],
            Field(min_length=1, max_length=100_000),
        ]
        | None
    ) = None


DatasetSource = Annotated[
    DatasetFiles | DatasetUrls | DatasetPaths | DatasetPart, Field(discriminator="kind")
]


class DatasetRequest(Spec):
    """Body of ``POST /api/v1/datasets``: make a dataset; no name yet.

    With ``tabular`` it is a table made of the files.
    """

    source: DatasetSource
    tabular: TabularDefinition | None = None


class DatasetRegisterRequest(Spec):
    """Body of ``POST /api/v1/datasets/{dataset_id}/register``."""

    name: Name
    description: Description | None = None
    tags: Tags = {}
    create_new_version: bool = False


class DatasetPatch(Spec):
    """Body of ``PATCH /api/v1/datasets/by-name/{name}/versions/{version}``; tags are merged."""

    description: Description | None = None
    tags: Tags = {}
    remove_tags: tuple[str, ...] = ()


class DatasetView(View):
    """A dataset; ``name`` and ``version`` are None until it is registered.

    ``tabular`` says how a table is made of the files, None for a dataset of files. ``bytes`` is
    None while web files have not been read. ``created`` in the answer to a registration tells a
    new version from one that had the same content.
    """

    dataset_id: str
    name: str | None = None
    version: int | None = None
    description: str | None = None
    tags: dict[str, str | None] = {}
    files: int
    bytes: int | None = None
    source: str
    tabular: TabularDefinition | None = None
    created_at: datetime
    created: bool = True


class DatasetFileView(View):
    """One file of a dataset; ``sha256`` is known once it has been read.

    ``instead``: where a web file was read, if not from its own ``url``.
    """

    path: str
    size: int | None = None
    sha256: str | None = None
    url: str | None = None
    instead: str | None = None


class DatastoreUploadRequest(Spec):
    """Body of ``POST /api/v1/datastores/{name}/files``: blobs get paths in a datastore."""

    entries: Annotated[tuple[ManifestEntry, ...], Field(min_length=1, max_length=100_000)]
    overwrite: bool = False


class DatastoreUploadView(View):
    """How many files were new and how many were there already with the same content."""

    stored: int
    unchanged: int


# --- environments -----------------------------------------------------------------------------


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


# --- compute ----------------------------------------------------------------------------------


class ComputeRequest(Spec):
    """Body of ``POST /api/v1/compute``."""

    name: ComputeName
    vm_size: Annotated[str, StringConstraints(max_length=100)] = "STANDARD_D2_V2"
    min_nodes: Annotated[int, Field(ge=0, le=1000)] = 0
    max_nodes: Annotated[int, Field(ge=1, le=1000)]
    idle_seconds_before_scaledown: Annotated[int, Field(ge=1, le=30 * 24 * 3600)] = 1800
    slots_per_node: Annotated[int, Field(ge=1, le=64)] = 1
    vm_priority: Literal["dedicated", "lowpriority"] = "dedicated"
    description: Description | None = None
    tags: Tags = {}


class ComputePatch(Spec):
    """Body of ``PATCH /api/v1/compute/{name}``; None leaves a value as it is."""

    min_nodes: Annotated[int, Field(ge=0, le=1000)] | None = None
    max_nodes: Annotated[int, Field(ge=1, le=1000)] | None = None
    idle_seconds_before_scaledown: Annotated[int, Field(ge=1, le=30 * 24 * 3600)] | None = None


class NodeView(View):
    """One node of a cluster."""

    node_id: str
    executor_id: str
    state: Literal["preparing", "idle", "running", "leaving", "unusable"]
    runs: tuple[str, ...] = ()


class ComputeView(View):
    """A cluster."""

    name: str
    vm_size: str
    vm_priority: str
    min_nodes: int
    max_nodes: int
    idle_seconds_before_scaledown: int
    slots_per_node: int
    description: str | None = None
    tags: dict[str, str | None] = {}
    current_nodes: int
    target_nodes: int
    queued_runs: int
    nodes: tuple[NodeView, ...] = ()
    created_at: datetime
    modified_at: datetime
    allocation_state: Literal["Steady", "Resizing"] = "Steady"
    message: str | None = None


# --- models -----------------------------------------------------------------------------------


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


# --- secrets ----------------------------------------------------------------------------------

MAX_SECRET_BYTES = 25 * 1024


class SecretRequest(Spec):
    """Body of ``PUT /api/v1/secrets/{name}``: at most 25 KiB of text, shown nowhere."""

    model_config = ConfigDict(hide_input_in_errors=True)

    value: str = Field(repr=False)


class SecretView(View):
    """A secret without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


class SecretValueView(SecretView):
    """A secret with its value: the answer of ``GET /api/v1/secrets/{name}`` alone."""

    value: str = Field(repr=False)


# --- the platform -----------------------------------------------------------------------------


class InfoView(View):
    """Answer of ``GET /api/v1/info``."""

    version: str
    workspace: str
    services: dict[str, str] = {}
    limits: dict[str, int] = {}
