"""Environments of the v1 SDK can read the tables their runs are given."""

import pytest

from azureml.core._table_readers import with_readers
from stellwerk import Dataset
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.runspec import EnvironmentReference

CSV = Dataset.Tabular.from_delimited_files("https://x.example/a.csv").as_named_input("csv")
PARQUET = Dataset.Tabular.from_parquet_files("https://x.example/a.parquet").as_named_input(
    "parquet"
)
FILES = Dataset.File.from_files("https://x.example/a.csv").as_named_input("files")


@pytest.mark.parametrize(
    ("packages", "data", "added"),
    [
        (("azureml-defaults",), [CSV, "--x", FILES], ("pandas",)),
        (("azureml-core>=1.2",), [CSV, PARQUET], ("pandas", "pyarrow")),
        (("Azureml-Defaults", "pandas==2.*"), [PARQUET], ("pyarrow",)),
        (("azureml-defaults",), [FILES, 3], ()),
        (("scikit-learn",), [CSV], ()),
    ],
)
def test_what_is_added(
    packages: tuple[str, ...], data: list[object], added: tuple[str, ...]
) -> None:
    found = with_readers(EnvironmentDefinition(pip_packages=packages), data)
    assert isinstance(found, EnvironmentDefinition)
    assert found.pip_packages == (*packages, *added)


def test_others_stay_as_they_are() -> None:
    own = EnvironmentDefinition(user_managed=True, interpreter="python")
    reference = EnvironmentReference(name="registered")
    assert with_readers(own, [CSV]) is own
    assert with_readers(reference, [CSV]) is reference
