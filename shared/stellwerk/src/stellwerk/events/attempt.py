"""Facts of the attempt aggregate: what executors report of one try at a run."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from stellwerk.events.base import Event, event

ExitReason = Literal[
    "exited",
    "signaled",
    "oom",
    "timeout",
    "canceled",
    "superseded",
    "lease-expired",
    "launch-failed",
    "disk-full",
    "environment-missing",
    "input-failed",
    "outputs-failed",
    "shim-lost",
]


class LogClosure(BaseModel):
    """How much a log holds when it is complete. ``sha256`` is over all its bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    stream: str
    path: str
    bytes: int
    sha256: str


class StoredOutput(BaseModel):
    """One output of an attempt: its files are blobs, ``manifest`` lists them."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    manifest: str
    files: int
    bytes: int


class ExitSummary(BaseModel):
    """How an attempt ended. Times in seconds, memory in bytes."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    reason: ExitReason
    exit_code: int | None = None
    signal: int | None = None
    oom: bool = False
    message: str | None = None
    duration_s: float | None = None
    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    outputs_manifest: str | None = None
    outputs_skipped: tuple[str, ...] = ()
    outputs: dict[str, StoredOutput] = {}
    logs: tuple[LogClosure, ...] = ()
    metric_records: int = 0

    @property
    def succeeded(self) -> bool:
        """Whether the user's program ended by itself with status 0."""
        return self.reason == "exited" and self.exit_code == 0


class StartInfo(BaseModel):
    """How an attempt's process began.

    ``warm``: in a process that had the frameworks loaded; ``cold_reason`` says why not.
    ``timings_s`` maps a step of the start on the node to the seconds it took, all by the node's
    monotonic clock: ``prepare`` with its parts ``code`` and ``data``, ``launch`` up to the loaded
    program, ``imports`` from there to the last framework's end of import (0: loaded before the
    run), ``first_step`` from there to the end of the first batch of ``Model.fit``. The last two
    are missing where a script does no such thing, or has not yet.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    warm: bool = False
    cold_reason: str | None = None
    timings_s: dict[str, float] = {}


class _AttemptEvent(Event):
    run_id: str
    attempt: Annotated[int, Field(ge=1)]
    node_id: str
    executor_id: str

    def discriminator(self) -> str:
        """The attempt's number."""
        return str(self.attempt)


@event(
    aggregate="attempt", verb="started", owner="gpu-executor", key="run_id", addressee="executor_id"
)
class AttemptStarted(_AttemptEvent):
    """The process runs. ``timings_s``, ``warm`` and ``cold_reason`` are those of ``StartInfo``."""

    started_at: float
    pid: int
    timings_s: dict[str, float] = {}
    warm: bool = False
    cold_reason: str | None = None

    @property
    def start(self) -> StartInfo:
        """How it began."""
        return StartInfo(warm=self.warm, cold_reason=self.cold_reason, timings_s=self.timings_s)


@event(aggregate="attempt", verb="progressed", owner="gpu-executor", key="run_id")
class AttemptProgressed(_AttemptEvent):
    """The script has got further: more of the ``timings_s`` of ``StartInfo`` are known.

    ``cold_reason``: why a script that began warm began again in a new interpreter.
    """

    timings_s: dict[str, float]
    cold_reason: str | None = None

    def discriminator(self) -> str:
        """The attempt's number and all the steps together, in milliseconds."""
        return f"{self.attempt}/{sum(self.timings_s.values()) * 1000:.0f}"


@event(
    aggregate="attempt", verb="exited", owner="gpu-executor", key="run_id", addressee="executor_id"
)
class AttemptExited(_AttemptEvent):
    """The process is gone; its log, records and outputs are stored. Said until seen."""

    exit: ExitSummary
