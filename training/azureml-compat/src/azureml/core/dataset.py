"""The v1 SDK's Dataset."""

from stellwerk.dataset import Dataset

__all__ = ["Dataset"]
