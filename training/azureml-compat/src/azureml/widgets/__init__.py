"""Notebook widgets."""

from azureml._border import speak_v1
from azureml.widgets._run_details import RunDetails

speak_v1()

__all__ = ["RunDetails"]
