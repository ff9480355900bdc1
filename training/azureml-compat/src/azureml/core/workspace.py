"""The v1 SDK's Workspace."""

from stellwerk.workspace import Workspace

__all__ = ["Workspace"]
