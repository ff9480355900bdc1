"""The v1 SDK's Run, from outside and inside.

Inside a run whose environment lacks the SDK's dependencies, or has an older Python, it is the
in-run library alone: values, files and tags are reported, and what needs the platform says what to
add to the environment.
"""

from typing import TYPE_CHECKING

from azureml._absent import ABSENT
from azureml.core._offline_run import _OfflineRun

if TYPE_CHECKING or not ABSENT:
    from azureml.core._run import Run, _SubmittedRun
else:
    from azureml.core._run_inside import Run, _SubmittedRun

__all__ = ["Run", "_OfflineRun", "_SubmittedRun"]
