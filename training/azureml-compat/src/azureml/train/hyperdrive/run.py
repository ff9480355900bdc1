"""Second import path of HyperDrive's runs."""

from azureml.train.hyperdrive import (
    HyperDriveRun,
    PrimaryMetricGoal,
)

__all__ = [
    "HyperDriveRun",
    "PrimaryMetricGoal",
]
