"""Tabular datasets: files read as one table, with steps that make new datasets."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import SystemRandom
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Never

from stellwerk.abstract_dataset import AbstractDataset
from stellwerk.api import DatasetRequest
from stellwerk.errors import DatasetTimestampMissingError, UserError
from stellwerk.refusals import naming_the_field
from stellwerk.tabular_definition import (
    Drop,
    Filter,
    Keep,
    Sample,
    Skip,
    Step,
    TabularDefinition,
    Take,
    TimeRange,
)
from stellwerk.tabular_filter import Condition, column

if TYPE_CHECKING:
    from stellwerk.file_dataset import FileDataset

MAX_SEED = 2**31


class TabularDataset(AbstractDataset):
    """A table made of files. Each step returns a new dataset; nothing is read before it is needed.

    Reading needs pandas, and pyarrow for Parquet.
    """

    @property
    def definition(self) -> TabularDefinition:
        """How the table is made."""
        known = self._view or self._request
        if known is None or known.tabular is None:
            raise UserError("the dataset is no table", code="dataset.type")
        return known.tabular

    @property
    def timestamp_columns(self) -> tuple[str | None, str | None]:
        """The columns that say when a row happened: exactly, and by partition."""
        return self.definition.timestamp, self.definition.partition_timestamp

    def __getitem__(self, name: str) -> Condition:
        return column(name)

    def to_pandas_dataframe(
        self,
        on_error: str = "null",  # noqa: ARG002 - v1's; values that do not fit are missing
        out_of_range_datetime: str = "null",  # noqa: ARG002 - the same
    ) -> Any:
        """The table as a pandas frame."""
        from stellwerk.tabular_reader import needed, read_table  # noqa: PLC0415 - costs an import

        needed("pandas", "A tabular dataset")
        with TemporaryDirectory(prefix="stellwerk-table-") as folder:
            self.download(folder)
            found = sorted(each.path for each in self.files())
            return read_table(self.definition, [(path, Path(folder, path)) for path in found])

    def to_spark_dataframe(self) -> Never:
        """Refuse: there is no Spark."""
        raise UserError("to_spark_dataframe: Stellwerk runs no Spark", code="unsupported")

    def to_csv_files(self, separator: str = ",") -> "FileDataset":
        """A dataset of one CSV file with the table."""
        return self._written(
            "table.csv", lambda frame, path: frame.to_csv(path, sep=separator, index=False)
        )

    def to_parquet_files(self) -> "FileDataset":
        """A dataset of one Parquet file with the table."""
        from stellwerk.tabular_reader import needed  # noqa: PLC0415 - costs an import

        needed("pyarrow", "Writing Parquet files")
        return self._written(
            "table.parquet", lambda frame, path: frame.to_parquet(path, index=False)
        )

    def take(self, count: int) -> "TabularDataset":
        """The first ``count`` rows."""
        return self._then(_step(Take, count=count))

    def skip(self, count: int) -> "TabularDataset":
        """All rows but the first ``count``."""
        return self._then(_step(Skip, count=count))

    def sample(
        self, sample_strategy: str, arguments: dict[str, Any] | None = None
    ) -> "TabularDataset":
        """Some rows: ``top_n`` with ``n``, or ``simple_random`` with ``probability``, ``seed``."""
        given = dict(arguments or {})
        if sample_strategy == "top_n" and set(given) == {"n"}:
            return self.take(given["n"])
        if sample_strategy == "simple_random" and "probability" in given and given.keys() <= {
            "probability", "seed",
        }:  # fmt: skip
            seed = _seed(given.get("seed"))
            return self._then(_step(Sample, probability=given["probability"], seed=seed))
        raise UserError(
            f"sample_strategy: got {sample_strategy!r} with {sorted(given)}; give 'top_n' with n, "
            "or 'simple_random' with probability and seed",
            code="dataset.sample",
            field="sample_strategy",
        )

    def random_split(
        self, percentage: float, seed: int | None = None
    ) -> tuple["TabularDataset", "TabularDataset"]:
        """Two datasets: each row is in the first with probability ``percentage`` (0 to 1)."""
        chosen = _step(Sample, probability=percentage, seed=_seed(seed))
        return self._then(chosen), self._then(chosen.model_copy(update={"rest": True}))

    def keep_columns(
        self, columns: Sequence[str] | str, validate: bool = False
    ) -> "TabularDataset":
        """Only these columns. Time columns that are not kept are known no longer."""
        wanted = _names(columns)
        made = self._then(_step(Keep, columns=wanted), gone=lambda name: name not in wanted)
        return _checked(made) if validate else made

    def drop_columns(self, columns: Sequence[str] | str) -> "TabularDataset":
        """All columns but these; one that is not there is no error."""
        dropped = _names(columns)
        return self._then(_step(Drop, columns=dropped), gone=lambda name: name in dropped)

    def filter(self, expression: Condition) -> "TabularDataset":
        """Rows for which ``dataset["column"] > 3`` and the like hold."""
        if not isinstance(expression, Condition):
            raise UserError(
                f"expression: got {type(expression).__name__}; write dataset['column'] > value",
                code="dataset.filter",
                field="expression",
            )
        return self._then(_step(Filter, expression=expression.tree))

    def with_timestamp_columns(
        self,
        timestamp: str | None = None,
        partition_timestamp: str | None = None,
        validate: bool = False,
        **kwargs: str | None,
    ) -> "TabularDataset":
        """Say which columns tell when a row happened. Both None take it back.

        Raises UserError for a partition's time without the rows' own.
        """
        timestamp = timestamp or kwargs.pop("fine_grain_timestamp", None)
        partition_timestamp = partition_timestamp or kwargs.pop("coarse_grain_timestamp", None)
        if kwargs:
            raise UserError(f"unknown argument {min(kwargs)!r}", code="unsupported")
        if partition_timestamp is not None and timestamp is None:
            raise UserError(
                f"timestamp: None, but partition_timestamp is {partition_timestamp!r}; a "
                "partition's time only adds to that of its rows, so name both or none",
                code="dataset.timestamp",
                field="timestamp",
            )
        update = {"timestamp": timestamp, "partition_timestamp": partition_timestamp}
        made = self._with(self.definition.model_copy(update=update))
        return _checked(made) if validate else made

    def time_before(
        self, end_time: datetime, include_boundary: bool = True, validate: bool = True
    ) -> "TabularDataset":
        """Rows up to a time. Raises DatasetTimestampMissingError without a time column."""
        del validate  # the column is checked when the table is read
        return self._in_time("time_before", None, end_time, inclusive=include_boundary)

    def time_after(
        self, start_time: datetime, include_boundary: bool = True, validate: bool = True
    ) -> "TabularDataset":
        """Rows from a time on. Raises DatasetTimestampMissingError without a time column."""
        del validate
        return self._in_time("time_after", start_time, None, inclusive=include_boundary)

    def time_between(
        self,
        start_time: datetime,
        end_time: datetime,
        include_boundary: bool = True,
        validate: bool = True,
    ) -> "TabularDataset":
        """Rows between two times. Raises DatasetTimestampMissingError without a time column."""
        del validate
        return self._in_time("time_between", start_time, end_time, inclusive=include_boundary)

    def time_recent(
        self, time_delta: timedelta, include_boundary: bool = True, validate: bool = True
    ) -> "TabularDataset":
        """Rows of the last ``time_delta``, counted from now."""
        del validate
        start = datetime.now(UTC) - time_delta
        return self._in_time("time_recent", start, None, inclusive=include_boundary)

    def _in_time(
        self, caller: str, start: datetime | None, end: datetime | None, *, inclusive: bool
    ) -> "TabularDataset":
        name = self.definition.timestamp
        if name is None:
            raise DatasetTimestampMissingError(
                f"{caller}: the dataset has no timestamp column; name one with "
                "with_timestamp_columns()",
                code="dataset.timestamp_missing",
            )
        return self._then(_step(TimeRange, column=name, start=start, end=end, inclusive=inclusive))

    def _then(self, step: Step, gone: Any = None) -> "TabularDataset":
        """The dataset after one more step; ``gone`` tells whether a column is lost by it."""
        definition = self.definition
        update: dict[str, Any] = {"steps": (*definition.steps, step)}
        timestamp, partition = definition.timestamp, definition.partition_timestamp
        if gone and timestamp is not None and gone(timestamp):
            update |= {"timestamp": None, "partition_timestamp": None}
        elif gone and partition is not None and gone(partition):
            update["partition_timestamp"] = None
        return self._with(definition.model_copy(update=update))

    def _with(self, definition: TabularDefinition) -> "TabularDataset":
        request = DatasetRequest(source=self.source(), tabular=definition)
        return TabularDataset(client=self._client, request=request)

    def _written(self, name: str, write: Any) -> "FileDataset":
        from stellwerk.dataset import upload_local  # noqa: PLC0415 - a ring

        with TemporaryDirectory(prefix="stellwerk-table-") as folder:
            path = Path(folder, name)
            write(self.to_pandas_dataframe(), path)
            return upload_local(self._connected(), [str(path)])


def _checked(table: TabularDataset) -> TabularDataset:
    """The table, read once: its time columns have to be there."""
    columns = list(table.to_pandas_dataframe().columns)
    for name in filter(None, table.timestamp_columns):
        if name not in columns:
            raise UserError(
                f"timestamp: there is no column {name!r}; columns are {', '.join(columns)}",
                code="dataset.column",
                field="timestamp",
            )
    return table


def _step(kind: Any, **values: Any) -> Any:
    with naming_the_field():
        return kind(**values)


def _seed(given: int | None) -> int:
    return SystemRandom().randrange(MAX_SEED) if given is None else given


def _names(columns: Sequence[str] | str) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)
