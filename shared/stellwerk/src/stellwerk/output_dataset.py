"""Outputs: folders that a run fills and that become datasets when it has completed."""

from copy import copy
from typing import TYPE_CHECKING, Any, Self

from stellwerk.client import Client
from stellwerk.datapath import DataPath
from stellwerk.dataset_consumption import DatasetConsumptionConfig, check_input_name
from stellwerk.datastore import DEFAULT_DATASTORE, Datastore
from stellwerk.errors import UserError
from stellwerk.file_dataset import FileDataset
from stellwerk.ids import new_id
from stellwerk.refusals import naming_the_field
from stellwerk.runspec import DatasetOutput, OutputRegistration
from stellwerk.tabular_definition import Drop, Keep, TabularDefinition
from stellwerk.tabular_factory import PromoteHeadersBehavior, Types, delimited, parquet

if TYPE_CHECKING:
    from stellwerk.run import Run

DEFAULT_PLACE = "dataset/{run-id}/{output-name}"


class OutputFileDatasetConfig:
    """A folder that a run fills. Usable as a script argument, where it becomes the folder's path.

    ``destination`` is where its files lie afterwards: (datastore, path), where ``{run-id}`` and
    ``{output-name}`` stand for themselves. Default: the default datastore,
    ``dataset/{run-id}/{output-name}``. ``source`` is the folder's place within the run's working
    folder. ``partition_format`` makes columns of parts of the paths (see ``read_*``).
    """

    def __init__(
        self,
        name: str | None = None,
        destination: "tuple[Datastore, str] | DataPath | Datastore | None" = None,
        source: str | None = None,
        partition_format: str | None = None,
    ) -> None:
        self.name = name or f"output_{new_id()[:8]}"
        check_input_name(self.name)
        self.destination = _place(destination)
        self.source = source
        self._partition_format = partition_format
        self._mode, self._overwrite = "mount", False
        self._registration: OutputRegistration | None = None
        self._tabular: TabularDefinition | None = None
        self._runs: list[Run] = []  # shared by copies: the run that was submitted with any of them

    def __repr__(self) -> str:
        return f"DatasetOutputConfig:{self.name}"

    def as_mount(self, disable_metadata_cache: bool = False) -> Self:
        """The same output; files that lie at the destination already are replaced."""
        del disable_metadata_cache
        return self._copy(_mode="mount")

    def as_upload(
        self, overwrite: bool = False, source_globs: str | list[str] | None = None
    ) -> Self:
        """The same output; without ``overwrite`` files at the destination are never replaced."""
        if source_globs is not None:
            raise UserError(
                "source_globs: not supported; write only what shall be kept into the folder",
                code="unsupported",
                field="source_globs",
            )
        return self._copy(_mode="upload", _overwrite=overwrite)

    def register_on_complete(
        self,
        name: str,
        description: str | None = None,
        tags: dict[str, str | None] | None = None,
    ) -> Self:
        """The same output, registered as the next version of ``name`` when the run completes."""
        with naming_the_field():
            wanted = OutputRegistration(name=name, description=description, tags=tags or {})
        return self._copy(_registration=wanted)

    def read_delimited_files(
        self,
        include_path: bool = False,
        separator: str = ",",
        header: bool | PromoteHeadersBehavior = True,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Types = None,
    ) -> "OutputTabularDatasetConfig":
        """The same output as a table of CSV files."""
        _refuse_glob(path_glob)
        definition = delimited(
            separator=separator,
            header=header,
            include_path=include_path,
            set_column_types=set_column_types,
            partition_format=partition_format or self._partition_format,
        )
        return OutputTabularDatasetConfig.of(self, definition)

    def read_parquet_files(
        self,
        include_path: bool = False,
        partition_format: str | None = None,
        path_glob: str | None = None,
        set_column_types: Types = None,
    ) -> "OutputTabularDatasetConfig":
        """The same output as a table of Parquet files."""
        _refuse_glob(path_glob)
        definition = parquet(
            set_column_types, include_path, partition_format or self._partition_format
        )
        return OutputTabularDatasetConfig.of(self, definition)

    def as_input(self, name: str | None = None) -> DatasetConsumptionConfig:
        """The dataset of this output for another run, once the run that makes it has completed."""
        return DatasetConsumptionConfig(
            name or self.name, _DatasetOfOutput(self), "direct" if self._tabular else "mount"
        )

    def spec(self) -> DatasetOutput:
        """The output of a run request. Raises UserError naming the field."""
        datastore, path = self.destination
        with naming_the_field():
            return DatasetOutput(
                datastore=datastore,
                path=path,
                mode=self._mode,
                overwrite=self._overwrite,
                path_on_compute=(self.source or "").lstrip("/") or None,
                register_as=self._registration,
                tabular=self._tabular,
            )

    def submitted(self, run: "Run") -> None:
        """Remember the run that makes this output."""
        self._runs[:] = [run]

    @property
    def run(self) -> "Run | None":
        """The run that makes this output, once it was submitted."""
        return self._runs[0] if self._runs else None

    def _copy(self, **changes: Any) -> Self:
        made = copy(self)
        vars(made).update(changes)
        return made


class OutputTabularDatasetConfig(OutputFileDatasetConfig):
    """An output that becomes a table; made by ``read_delimited_files`` and its like."""

    @classmethod
    def of(
        cls, output: OutputFileDatasetConfig, definition: TabularDefinition
    ) -> "OutputTabularDatasetConfig":
        """``output`` as a table."""
        made = object.__new__(cls)
        vars(made).update({**vars(output), "_tabular": definition})
        return made

    def keep_columns(self, columns: list[str] | str) -> "OutputTabularDatasetConfig":
        """The same output with only these columns."""
        return self._then(Keep(columns=_names(columns)))

    def drop_columns(self, columns: list[str] | str) -> "OutputTabularDatasetConfig":
        """The same output without these columns."""
        return self._then(Drop(columns=_names(columns)))

    def _then(self, step: Keep | Drop) -> "OutputTabularDatasetConfig":
        known = vars(self)["_tabular"]
        return self._copy(_tabular=known.model_copy(update={"steps": (*known.steps, step)}))


class _DatasetOfOutput(FileDataset):
    """The dataset an output will be; known when its run has completed."""

    def __init__(self, output: OutputFileDatasetConfig) -> None:
        super().__init__(request=None)
        self._output = output

    def saved(self, client: Client | None) -> Any:
        """The platform's view. Raises UserError while the run has not made it."""
        run = self._output.run
        if run is None:
            raise UserError(
                f"output {self._output.name!r}: submit the run that makes it first",
                code="output.not_made",
            )
        made = run.output_dataset(self._output.name)
        self._client = client or made._client  # noqa: SLF001 - of the same family
        self._view = made.saved(client)
        return self._view


def _place(destination: object) -> tuple[str, str]:
    match destination:
        case None:
            return DEFAULT_DATASTORE, DEFAULT_PLACE
        case Datastore():
            return destination.name, DEFAULT_PLACE
        case DataPath():
            return destination.datastore.name, destination.path_on_datastore or DEFAULT_PLACE
        case (Datastore() as datastore, str(path)):
            return datastore.name, path.strip("/") or DEFAULT_PLACE
        case (Datastore() as datastore,):
            return datastore.name, DEFAULT_PLACE
        case _:
            raise UserError(
                f"destination: got {destination!r}; give (datastore, 'path')",
                code="output.destination",
                field="destination",
            )


def _refuse_glob(path_glob: str | None) -> None:
    if path_glob is not None:
        raise UserError("path_glob: not supported", code="unsupported", field="path_glob")


def _names(columns: list[str] | str) -> tuple[str, ...]:
    return (columns,) if isinstance(columns, str) else tuple(columns)
