"""The v1 SDK's CondaDependencies."""

from stellwerk.conda_dependencies import CondaDependencies

__all__ = ["CondaDependencies"]
