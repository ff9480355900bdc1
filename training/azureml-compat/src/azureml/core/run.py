"""The v1 SDK's Run, from outside and inside.

Inside a run whose environment lacks the SDK's dependencies, or has an older Python, it is the
in-run library alone: values, files and tags are reported, and what needs the platform says what to
add to the environment.
"""

import sys
from typing import TYPE_CHECKING

from azureml.core._offline_run import _OfflineRun

if TYPE_CHECKING:
    from azureml.core._run import Run, _SubmittedRun
elif sys.version_info < (3, 11):  # noqa: UP036 - a run may have an older Python
    from azureml.core._run_inside import Run, _SubmittedRun
else:
    try:
        from azureml.core._run import Run, _SubmittedRun
    except ImportError:
        from azureml.core._run_inside import Run, _SubmittedRun

__all__ = ["Run", "_OfflineRun", "_SubmittedRun"]
