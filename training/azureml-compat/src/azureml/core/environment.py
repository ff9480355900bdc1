"""The v1 SDK's Environment."""

from stellwerk.environment import Environment

__all__ = ["Environment"]
