"""``Dataset.Tabular``: tables made of files."""

from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Never

from stellwerk.api import DatasetRequest
from stellwerk.datapath import DataPath
from stellwerk.dataset_paths import DatasetPath, source_of
from stellwerk.errors import UserError
from stellwerk.refusals import naming_the_field
from stellwerk.tabular_dataset import TabularDataset
from stellwerk.tabular_definition import ColumnType, Headers, TabularDefinition

if TYPE_CHECKING:
    from stellwerk.datastore import Datastore


class PromoteHeadersBehavior(Enum):
    """Which files of a table begin with a line of column names."""

    NO_HEADERS = 0
    ONLY_FIRST_FILE_HAS_HEADERS = 1
    COMBINE_ALL_FILES_HEADERS = 2
    ALL_FILES_HAVE_SAME_HEADERS = 3


class DataType:
    """Types for ``set_column_types``."""

    @staticmethod
    def to_string() -> ColumnType:
        """Text."""
        return ColumnType(kind="string")

    @staticmethod
    def to_long() -> ColumnType:
        """Whole numbers."""
        return ColumnType(kind="integer")

    @staticmethod
    def to_float(decimal_mark: str = ".") -> ColumnType:
        """Numbers."""
        if decimal_mark != ".":
            raise UserError("decimal_mark: only '.' is supported", field="decimal_mark")
        return ColumnType(kind="decimal")

    @staticmethod
    def to_bool() -> ColumnType:
        """Truth values: true and false, 1 and 0."""
        return ColumnType(kind="boolean")

    @staticmethod
    def to_datetime(formats: Sequence[str] | str | None = None) -> ColumnType:
        """Times; ``formats`` are strptime's, tried in order."""
        given = (formats,) if isinstance(formats, str) else tuple(formats or ())
        return ColumnType(kind="datetime", formats=given)


_HEADERS: dict[object, Headers] = {
    PromoteHeadersBehavior.NO_HEADERS: "none",
    PromoteHeadersBehavior.ONLY_FIRST_FILE_HAS_HEADERS: "only-first-file",
    PromoteHeadersBehavior.COMBINE_ALL_FILES_HEADERS: "all-files-different",
    PromoteHeadersBehavior.ALL_FILES_HAVE_SAME_HEADERS: "all-files-same",
    True: "all-files-same",
    False: "none",
}

Paths = DatasetPath | Sequence[DatasetPath]
Types = Mapping[str, ColumnType] | None


class TabularDatasetFactory:
    """``Dataset.Tabular``. Paths are those of ``Dataset.File.from_files``."""

    @staticmethod
    def from_delimited_files(
        path: Paths,
        validate: bool = True,
        include_path: bool = False,
        infer_column_types: bool = True,
        set_column_types: Types = None,
        separator: str = ",",
        header: bool | PromoteHeadersBehavior = True,
        partition_format: str | None = None,
        support_multi_line: bool = False,
        empty_as_string: bool = False,
        encoding: str = "utf8",
    ) -> TabularDataset:
        """A table of CSV files or the like. The files are read when the table is."""
        del validate, empty_as_string
        return _made(path, delimited(
            separator=separator, header=header, include_path=include_path, encoding=encoding,
            infer_column_types=infer_column_types, set_column_types=set_column_types,
            partition_format=partition_format, support_multi_line=support_multi_line,
        ))  # fmt: skip

    @staticmethod
    def from_parquet_files(
        path: Paths,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Types = None,
        partition_format: str | None = None,
    ) -> TabularDataset:
        """A table of Parquet files."""
        del validate
        return _made(path, parquet(set_column_types, include_path, partition_format))

    @staticmethod
    def from_json_lines_files(
        path: Paths,
        validate: bool = True,
        include_path: bool = False,
        set_column_types: Types = None,
        partition_format: str | None = None,
        invalid_lines: str = "error",
        encoding: str = "utf8",
    ) -> TabularDataset:
        """A table of files with one JSON object a line."""
        del validate
        if invalid_lines != "error":
            raise UserError(
                f"invalid_lines: got {invalid_lines!r}; only 'error' is supported",
                field="invalid_lines",
            )
        with naming_the_field():
            definition = TabularDefinition(
                format="json-lines",
                include_path=include_path,
                column_types=dict(set_column_types or {}),
                partition_format=partition_format,
                encoding=encoding,
            )
        return _made(path, definition)

    @staticmethod
    def from_sql_query(*_args: Any, **_kwargs: Any) -> Never:
        """Refuse: Stellwerk reads files."""
        raise UserError(
            "from_sql_query: Stellwerk reads files only; write the query's result to a file and "
            "use from_delimited_files or from_parquet_files",
            code="unsupported",
        )

    @staticmethod
    def register_pandas_dataframe(
        dataframe: Any,
        target: "DataPath | tuple[Datastore, str] | Datastore",
        name: str,
        description: str | None = None,
        tags: dict[str, str | None] | None = None,
        row_group_size: int | None = None,
        show_progress: bool = True,
    ) -> TabularDataset:
        """Store a frame as a Parquet file below ``target``, registered as the next version."""
        from stellwerk.tabular_reader import needed  # noqa: PLC0415 - costs an import

        needed("pyarrow", "Writing Parquet files")
        if isinstance(target, tuple):
            target = DataPath(*target)
        place = target if isinstance(target, DataPath) else target.path()
        with TemporaryDirectory(prefix="stellwerk-table-") as folder:
            file = Path(folder, f"{name}.parquet")
            dataframe.to_parquet(file, index=False, row_group_size=row_group_size)
            stored = place.datastore.upload_files(
                [str(file)], folder, place.path_on_datastore, True, show_progress
            )
        table = TabularDatasetFactory.from_parquet_files(stored.path_from(file.name))
        return table.register(
            place.datastore.workspace, name, description, tags, create_new_version=True
        )


def delimited(
    separator: str = ",",
    header: bool | PromoteHeadersBehavior = True,
    include_path: bool = False,
    infer_column_types: bool = True,
    set_column_types: Types = None,
    partition_format: str | None = None,
    encoding: str = "utf8",
    support_multi_line: bool = False,
) -> TabularDefinition:
    """How CSV files become a table. Raises UserError naming the field."""
    if header not in _HEADERS:
        raise UserError(
            f"header: got {header!r}; give True, False or a PromoteHeadersBehavior", field="header"
        )
    with naming_the_field():
        return TabularDefinition(
            format="delimited",
            separator=separator,
            headers=_HEADERS[header],
            encoding=encoding,
            quoted_line_breaks=support_multi_line,
            infer_types=infer_column_types,
            column_types=dict(set_column_types or {}),
            partition_format=partition_format,
            include_path=include_path,
        )


def parquet(
    set_column_types: Types = None, include_path: bool = False, partition_format: str | None = None
) -> TabularDefinition:
    """How Parquet files become a table. Raises UserError naming the field."""
    with naming_the_field():
        return TabularDefinition(
            format="parquet",
            column_types=dict(set_column_types or {}),
            partition_format=partition_format,
            include_path=include_path,
        )


def _made(path: Paths, definition: TabularDefinition) -> TabularDataset:
    client, source = source_of(path)
    return TabularDataset(client=client, request=DatasetRequest(source=source, tabular=definition))
