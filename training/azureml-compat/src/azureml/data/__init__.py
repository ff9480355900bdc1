"""The v1 SDK's data objects. Everything is imported on first use."""

from importlib import import_module
from typing import TYPE_CHECKING

from azureml._border import speak_v1
from azureml.core import VERSION

if TYPE_CHECKING:
    from azureml.data.data_reference import DataReference
    from azureml.data.datapath import DataPath
    from azureml.data.dataset_consumption_config import DatasetConsumptionConfig
    from azureml.data.dataset_factory import DataType
    from azureml.data.file_dataset import FileDataset
    from azureml.data.output_dataset_config import (
        OutputFileDatasetConfig,
        OutputTabularDatasetConfig,
    )
    from azureml.data.tabular_dataset import TabularDataset

__version__ = VERSION

HOMES = {
    "DataPath": "datapath",
    "DataReference": "data_reference",
    "DataType": "dataset_factory",
    "DatasetConsumptionConfig": "dataset_consumption_config",
    "FileDataset": "file_dataset",
    "OutputFileDatasetConfig": "output_dataset_config",
    "OutputTabularDatasetConfig": "output_dataset_config",
    "TabularDataset": "tabular_dataset",
}
"""Module of each name."""

__all__ = [
    "DataPath",
    "DataReference",
    "DataType",
    "DatasetConsumptionConfig",
    "FileDataset",
    "OutputFileDatasetConfig",
    "OutputTabularDatasetConfig",
    "TabularDataset",
]

speak_v1()


def __getattr__(name: str) -> object:
    home = HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'azureml.data' has no attribute {name!r}")
    value: object = getattr(import_module(f"azureml.data.{home}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
