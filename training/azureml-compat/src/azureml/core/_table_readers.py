"""What reads tables in a run: the v1 SDK brought pandas along, Stellwerk's does not.

An environment that names a distribution of the v1 SDK and gets a table as input gets pandas (for
Parquet files pyarrow too) with it. One that is registered or manages itself stays as it is.
"""

import re
from collections.abc import Iterable

from stellwerk.dataset_consumption import DatasetConsumptionConfig
from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.runspec import EnvironmentReference
from stellwerk.tabular_dataset import TabularDataset

_NAME = re.compile(r"[A-Za-z0-9._-]+")

Environment = EnvironmentReference | EnvironmentDefinition


def with_readers(environment: Environment, data: Iterable[object]) -> Environment:
    """``environment``, able to read the tables among a run's ``data``."""
    if isinstance(environment, EnvironmentReference) or environment.user_managed:
        return environment
    formats = {
        each.dataset.definition.format
        for each in data
        if isinstance(each, DatasetConsumptionConfig) and isinstance(each.dataset, TabularDataset)
    }
    listed = (*environment.pip_packages, *environment.conda_packages)
    names = {found.group().lower() for text in listed if (found := _NAME.match(text))}
    if not formats or not any(name.startswith("azureml-") for name in names):
        return environment
    wanted = ["pandas", "pyarrow"] if "parquet" in formats else ["pandas"]
    missing = tuple(name for name in wanted if name not in names)
    return environment.model_copy(update={"pip_packages": (*environment.pip_packages, *missing)})
