"""Open datasets: MNIST and Diabetes, read through the platform's mirrors.

The addresses are those of the original hosts. The platform knows where their bytes are read
instead (services/dataset, ``rewrites.json``), and a run that uses them is told.
"""

from typing import Any

from azureml._border import speak_v1
from azureml._refusal import Refused
from stellwerk.dataset import Dataset, FileDataset, TabularDataset

MNIST_HOST = "https://azureopendatastorage.blob.core.windows.net/mnist/"
MNIST_FILES = (
    "train-images-idx3-ubyte.gz",
    "train-labels-idx1-ubyte.gz",
    "t10k-images-idx3-ubyte.gz",
    "t10k-labels-idx1-ubyte.gz",
)
DIABETES_URL = "https://www4.stat.ncsu.edu/~boos/var.select/diabetes.tab.txt"

speak_v1()


class MNIST:
    """70,000 images of handwritten digits in four IDX files."""

    @staticmethod
    def get_file_dataset(**_kwargs: Any) -> FileDataset:
        """The four files."""
        return Dataset.File.from_files([MNIST_HOST + name for name in MNIST_FILES])


class Diabetes:
    """442 patients, ten measurements each, and the disease's progression (Efron et al. 2004)."""

    @staticmethod
    def get_tabular_dataset(**_kwargs: Any) -> TabularDataset:
        """The table: AGE, SEX, BMI, BP, S1 to S6, Y."""
        return Dataset.Tabular.from_delimited_files(DIABETES_URL, separator="\t")

    @staticmethod
    def get_file_dataset(**_kwargs: Any) -> FileDataset:
        """The file."""
        return Dataset.File.from_files(DIABETES_URL)

    def to_pandas_dataframe(self) -> Any:
        """The table as a pandas frame."""
        return self.get_tabular_dataset().to_pandas_dataframe()


class _Elsewhere(metaclass=Refused):
    reason = (
        "Stellwerk has no copy of this open dataset. Name its files' web addresses in "
        "Dataset.File.from_files() or Dataset.Tabular.from_parquet_files()."
    )


class NoaaIsdWeather(_Elsewhere):
    """Refused."""


class NycTlcGreen(_Elsewhere):
    """Refused."""


class NycTlcYellow(_Elsewhere):
    """Refused."""


class PublicHolidays(_Elsewhere):
    """Refused."""


__all__ = [
    "MNIST",
    "Diabetes",
    "NoaaIsdWeather",
    "NycTlcGreen",
    "NycTlcYellow",
    "PublicHolidays",
]
