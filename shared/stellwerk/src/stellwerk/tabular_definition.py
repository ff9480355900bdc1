"""What makes a table of a dataset's files: how they are read, and the steps after that. Pure data.

A definition is part of a tabular dataset's identity. The platform keeps it; the user's environment
evaluates it (``stellwerk.tabular_reader``).
"""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
)

Column = Annotated[str, StringConstraints(min_length=1, max_length=500)]
Columns = Annotated[tuple[Column, ...], Field(min_length=1, max_length=5000)]
ColumnKind = Literal["string", "integer", "decimal", "boolean", "datetime"]
Headers = Literal["all-files-same", "only-first-file", "all-files-different", "none"]


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Step(_Part):
    op: str

    @model_serializer(mode="wrap")
    def _named(self, rest: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A step always says which it is, also where defaults are left out."""
        return {**rest(self), "op": self.op}


class ColumnType(_Part):
    """The type of a column; ``formats`` are strptime formats of a datetime, tried in order."""

    kind: ColumnKind
    formats: Annotated[tuple[str, ...], Field(max_length=20)] = ()


class Keep(_Step):
    """Only these columns, in this order."""

    op: Literal["keep"] = "keep"
    columns: Columns


class Drop(_Step):
    """All columns but these."""

    op: Literal["drop"] = "drop"
    columns: Columns


class Take(_Step):
    """The first rows."""

    op: Literal["take"] = "take"
    count: Annotated[int, Field(ge=0)]


class Skip(_Step):
    """All rows but the first ones."""

    op: Literal["skip"] = "skip"
    count: Annotated[int, Field(ge=0)]


class Sample(_Step):
    """Each row with ``probability``, by ``seed``; ``rest`` means the rows that were not chosen."""

    op: Literal["sample"] = "sample"
    probability: Annotated[float, Field(ge=0, le=1)]
    seed: int
    rest: bool = False


class Filter(_Step):
    """Rows for which an expression holds (``stellwerk.tabular_filter``)."""

    op: Literal["filter"] = "filter"
    expression: JsonValue


class TimeRange(_Step):
    """Rows whose time lies between ``start`` and ``end``, which belong to it if ``inclusive``."""

    op: Literal["time"] = "time"
    column: Column
    start: datetime | None = None
    end: datetime | None = None
    inclusive: bool = True


Step = Annotated[Keep | Drop | Take | Skip | Sample | Filter | TimeRange, Field(discriminator="op")]


class TabularDefinition(_Part):
    """How files become a table.

    ``partition_format`` makes columns of parts of the path. ``column_types`` overrule what is
    inferred; without ``infer_types`` all other columns are text. ``timestamp`` and
    ``partition_timestamp`` name the columns that say when a row happened.
    """

    format: Literal["delimited", "parquet", "json-lines"]
    separator: Annotated[str, StringConstraints(min_length=1, max_length=10)] = ","
    headers: Headers = "all-files-same"
    encoding: Annotated[str, StringConstraints(pattern=r"^[a-z0-9-]{1,20}$")] = "utf8"
    quoted_line_breaks: bool = False
    infer_types: bool = True
    column_types: Annotated[dict[Column, ColumnType], Field(max_length=5000)] = {}
    partition_format: Annotated[str, StringConstraints(max_length=1000)] | None = None
    include_path: bool = False
    timestamp: Column | None = None
    partition_timestamp: Column | None = None
    steps: Annotated[tuple[Step, ...], Field(max_length=100)] = ()
