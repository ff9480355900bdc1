"""Inside a run: report metrics, files, tags and properties.

The documented line is `from stellwerk_agent import Run`, then `run = Run.get_context()`.
Standard library only, Python 3.6 and later. Without a run around it everything is printed instead.
"""

from stellwerk_agent.errors import RunEnvironmentError, UserError
from stellwerk_agent.offline import _OfflineRun
from stellwerk_agent.run import Run

__all__ = ["Run", "RunEnvironmentError", "UserError", "_OfflineRun"]
