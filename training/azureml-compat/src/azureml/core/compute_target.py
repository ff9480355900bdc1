"""Second import path of compute targets and their exception."""

from azureml.core.compute import AmlCompute, ComputeTarget
from azureml.exceptions import ComputeTargetException

__all__ = ["AmlCompute", "ComputeTarget", "ComputeTargetException"]
