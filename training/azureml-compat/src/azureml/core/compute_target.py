"""Second import path of compute targets and their exception."""

from azureml.core.compute import (
    AksCompute,
    AmlCompute,
    ComputeInstance,
    ComputeTarget,
    ComputeTargetException,
    RemoteCompute,
)

__all__ = [
    "AksCompute",
    "AmlCompute",
    "ComputeInstance",
    "ComputeTarget",
    "ComputeTargetException",
    "RemoteCompute",
]
