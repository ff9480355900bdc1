"""Second import path of HyperDrive's configuration."""

from azureml.train.hyperdrive import (
    HyperDriveConfig,
    PrimaryMetricGoal,
)

__all__ = [
    "HyperDriveConfig",
    "PrimaryMetricGoal",
]
