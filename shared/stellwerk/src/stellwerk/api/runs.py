"""Runs: what is asked for, what users see, their events, logs, files and metrics."""

from datetime import datetime
from typing import Literal

from stellwerk.api.base import View
from stellwerk.events.attempt import ExitSummary, StartInfo
from stellwerk.events.dataset import ProducedDataset, ResolvedInput
from stellwerk.events.image import ImageInfo
from stellwerk.runspec import Name, RunSpec, Spec, Tags


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
