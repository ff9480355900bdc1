"""What the v1 SDK's datasets have in common."""

from stellwerk.abstract_dataset import AbstractDataset

__all__ = ["AbstractDataset"]
