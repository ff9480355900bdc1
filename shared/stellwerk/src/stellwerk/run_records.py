"""What clients log into runs: bodies of ``POST /api/v1/runs/{id}/records`` and ``…/end``.

The letters of a record's fields are those of ``docs/run-protocol.md``.
"""

from types import NoneType
from typing import Annotated, Any, Literal, Self

from pydantic import Base64Bytes, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from stellwerk.api import Count, View
from stellwerk.ids import ID_PATTERN
from stellwerk.runspec import Digest, RelativePath, Spec

LOG_CHUNK = 256 * 1024
MAX_LOGS = 100
MetricName = Annotated[str, StringConstraints(min_length=1, max_length=255)]


class MetricRecord(Spec):
    """A logged value: a scalar, a list, a row (column → scalar) or a table (column → list)."""

    k: Literal["metric"]
    n: MetricName
    t: Literal["scalar", "list", "row", "table"] = "scalar"
    v: Any
    s: Annotated[int, Field(gt=-(2**63), lt=2**63)] | None = None
    ts: Annotated[float, Field(ge=0)] | None = None
    d: str = ""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        wanted = {"scalar": (str, int, float, bool, NoneType), "list": (list,)}
        if not isinstance(self.v, wanted.get(self.t, (dict,))):
            raise PydanticCustomError(
                "record.value",
                "a {kind} cannot be of type {given}",
                {"kind": self.t, "given": type(self.v).__name__},
            )
        return self


class FileRecord(Spec):
    """A file of the run, whose blob is uploaded. ``n`` is its path in the run."""

    k: Literal["file"]
    n: RelativePath
    size: Count
    sha256: Digest
    ts: Annotated[float, Field(ge=0)] | None = None


class ArtifactRecord(Spec):
    """A metric whose value is a file of the run: an image, or the JSON of a plot."""

    k: Literal["image", "artifact"]
    n: MetricName
    f: RelativePath
    size: Count
    sha256: Digest
    ts: Annotated[float, Field(ge=0)] | None = None
    d: str = ""


Record = Annotated[MetricRecord | FileRecord | ArtifactRecord, Field(discriminator="k")]


class RecordsRequest(Spec):
    """Body of ``POST /api/v1/runs/{id}/records``: what a client logs into a run.

    ``writer`` is an id of the client's own choice; it numbers its records from 0 and sends them in
    order. ``first`` is the number of the first one here: repeats change nothing.
    """

    writer: Annotated[str, StringConstraints(pattern=ID_PATTERN)]
    first: Annotated[int, Field(ge=0, lt=2**31)]
    records: Annotated[tuple[Record, ...], Field(min_length=1, max_length=5000)]


class RecordsView(View):
    """``next`` is the number of the writer's next record. ``seen``: readers see them by now."""

    next: int
    seen: bool


LogPath = Annotated[str, StringConstraints(pattern=r"^logs/", max_length=1024)]


class LogChunk(Spec):
    """Body of ``POST /api/v1/runs/{id}/logs``: the next bytes of a file under ``logs/``, base64.

    ``offset`` is where they stand in it: repeats change nothing.
    """

    path: LogPath
    offset: Count
    data: Annotated[Base64Bytes, Field(min_length=1, max_length=LOG_CHUNK)]


class LogChunkView(View):
    """``next`` is the offset that follows."""

    next: int


class LogEnd(Spec):
    """All of a log that was sent."""

    path: LogPath
    bytes: Count
    sha256: Digest


class RunEndRequest(Spec):
    """Body of ``POST /api/v1/runs/{id}/end``: an interactive run is over, its ``logs`` complete."""

    status: Literal["Completed", "Failed", "Canceled"]
    code: Annotated[str, StringConstraints(max_length=100)] = ""
    message: Annotated[str, StringConstraints(max_length=4000)] = ""
    logs: Annotated[tuple[LogEnd, ...], Field(max_length=MAX_LOGS)] = ()
