"""The data of a run request: what its arguments name becomes inputs and outputs."""

import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

from stellwerk.abstract_dataset import AbstractDataset
from stellwerk.api import DatasetRequest
from stellwerk.client import Client
from stellwerk.datapath import EVERYTHING, DataPath, DataReference, DataReferenceConfiguration
from stellwerk.dataset_consumption import DatasetConsumptionConfig
from stellwerk.dataset_paths import place_source
from stellwerk.datastore import DEFAULT_DATASTORE
from stellwerk.errors import UserError
from stellwerk.file_dataset import FileDataset
from stellwerk.output_dataset import OutputFileDatasetConfig
from stellwerk.refusals import naming_the_field
from stellwerk.runspec import Argument, DatasetInput, DatasetOutput, InputArgument, OutputArgument

if TYPE_CHECKING:
    from stellwerk.run import Run

_BARE_OBJECT = re.compile(r"^<.* object at 0x[0-9a-f]+>$")

T = TypeVar("T")
Inputs = dict[str, DatasetInput]
Outputs = dict[str, DatasetOutput]


def is_data(value: object) -> bool:
    """Whether an argument stands for data, whose path only the run knows."""
    return isinstance(value, DatasetConsumptionConfig | OutputFileDatasetConfig | DataPath)


def gather(
    client: Client,
    values: Iterable[object],
    references: Mapping[str, DataReference | DataReferenceConfiguration],
) -> tuple[Inputs, Outputs]:
    """Inputs and outputs that ``values`` and ``references`` name; saves datasets that are plans.

    Raises UserError where one name means two things.
    """
    inputs: Inputs = {}
    outputs: Outputs = {}
    for value in values:
        match value:
            case DatasetConsumptionConfig():
                _put(inputs, value.name, value.spec(client))
            case OutputFileDatasetConfig():
                _put(outputs, value.name, value.spec())
            case DataReference():
                _put_reference(client, inputs, outputs, value.data_reference_name, value)
    for name, reference in references.items():
        _put_reference(client, inputs, outputs, name, reference)
    return inputs, outputs


def argument(index: int, value: object) -> Argument:
    """A script's argument as the request has it. Raises UserError naming it."""
    match value:
        case DatasetConsumptionConfig():
            return InputArgument(input=value.name)
        case OutputFileDatasetConfig():
            return OutputArgument(output=value.name)
        case DataReference():
            return str(value)
        case os.PathLike():
            return os.fsdecode(value)
    where = f"arguments[{index}]"
    if isinstance(value, AbstractDataset):
        raise UserError(
            f"{where}: a dataset cannot be an argument itself; use dataset.as_mount(), "
            "dataset.as_download() or dataset.as_named_input('name')",
            code="argument.dataset",
            field=where,
        )
    text = "" if value is None else str(value)
    if value is None or isinstance(value, DataPath) or _BARE_OBJECT.match(text):
        raise UserError(
            f"{where}: got {value!r} ({type(value).__name__}), which has no meaning on a command "
            "line; give text or a number",
            code="argument.type",
            field=where,
        )
    return text


def remember(values: Iterable[object], run: "Run") -> None:
    """Tell the outputs among ``values`` which run makes them."""
    for value in values:
        if isinstance(value, OutputFileDatasetConfig):
            value.submitted(run)


def _put_reference(
    client: Client,
    inputs: Inputs,
    outputs: Outputs,
    name: str,
    given: DataReference | DataReferenceConfiguration,
) -> None:
    config = given.to_config() if isinstance(given, DataReference) else given
    path = (config.path_on_datastore or "").strip("/")
    datastore = config.datastore_name or DEFAULT_DATASTORE
    place = (config.path_on_compute or "").lstrip("/") or None
    with naming_the_field():
        if config.mode == "upload":
            output = DatasetOutput(
                datastore=datastore, path=path or ".", mode="upload",
                overwrite=config.overwrite, path_on_compute=place,
            )  # fmt: skip
            _put(outputs, name, output)
            return
        source = place_source(client, datastore, path or EVERYTHING)
        dataset = FileDataset(client=client, request=DatasetRequest(source=source))
        view = dataset.saved(client)
        wanted = DatasetInput(dataset=view.dataset_id, mode=config.mode, path=place)
    _put(inputs, name, wanted)


def _put(known: dict[str, T], name: str, wanted: T) -> None:
    if known.setdefault(name, wanted) != wanted:
        raise UserError(
            f"arguments: two different inputs or outputs are called {name!r}; rename one with "
            "as_named_input() or name=",
            code="input.name",
            field="arguments",
        )
