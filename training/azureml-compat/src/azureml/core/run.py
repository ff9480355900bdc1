"""The v1 SDK's Run, from outside and inside; inside it needs none of the SDK's dependencies."""

from typing import TYPE_CHECKING

from stellwerk_agent import _OfflineRun

if TYPE_CHECKING:
    from stellwerk.run import Run
else:
    try:
        from stellwerk.run import Run
    except ImportError:
        from stellwerk_agent import Run

__all__ = ["Run", "_OfflineRun"]
