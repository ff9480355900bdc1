"""Parameters of the routes: what a path or a query may contain, said once."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Header, Path, Query
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from stellwerk.errors import UserError
from stellwerk.ids import ID_PATTERN, NAME_PATTERN
from stellwerk.manifest import safe_path

RunId = Annotated[str, Path(pattern=ID_PATTERN, description="Id of a run.")]
DatasetId = Annotated[str, Path(pattern=ID_PATTERN, description="Id of a dataset.")]
EnvId = Annotated[str, Path(pattern=ID_PATTERN, description="Id of a prepared environment.")]
DatasetName = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of a dataset.")]
DatastoreName = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of a datastore.")]
EnvironmentName = Annotated[str, Path(pattern=NAME_PATTERN, description="Name of an environment.")]
ComputeId = Annotated[
    str, Path(pattern=r"^[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?$", description="Name of a cluster.")
]
ModelId = Annotated[
    str, Path(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}$", description="Name of a model.")
]
Key = Annotated[
    Annotated[str, StringConstraints(pattern=r"^[\x21-\x7e]{1,255}$")] | None,
    Header(description="Repeats with the same key and body are one."),
]
SecretId = Annotated[str, Path(description="Name of a secret: 1 to 127 letters, digits and -.")]
VersionNumber = Annotated[int, Path(ge=1, le=2**31, description="Version, from 1.")]
Version = Annotated[
    int | None, Query(ge=1, le=2**31, description="Version; without it the latest.")
]
Offset = Annotated[int, Query(ge=0, le=2**53, description="First byte wanted.")]
LogAttempt = Annotated[
    int | None,
    Query(
        ge=1,
        lt=2**31,
        description="The attempt whose log is meant, by the name it has while that is the latest. "
        "Who comes back for the rest names the attempt it began with.",
    ),
]
Follow = Annotated[bool, Query(description="Keep the answer open while the log grows.")]
FilePath = Annotated[str, Path(description="Relative path, with slashes.")]


OneLabel = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=1000)], ...],
    Field(max_length=1),
]
"""A filter that may be given once; a second one is refused, not ignored."""


class PageQuery(BaseModel):
    """Paging of every list."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=1, le=1000, description="Most items in the answer.")
    cursor: str | None = Field(None, max_length=8192, description="next_cursor of the last page.")


def one_label(given: Sequence[str]) -> str | None:
    """The one filter, None where none was given."""
    return given[0] if given else None


def relative_path(text: str, field: str = "path") -> str:
    """A path after full decoding, checked once. Raises UserError ``path.invalid``."""
    try:
        return safe_path(text)
    except ValueError as error:
        raise UserError(f"{field}: {error}", code="path.invalid", field=field) from error
