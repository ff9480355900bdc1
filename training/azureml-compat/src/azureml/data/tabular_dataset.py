"""The v1 SDK's tables."""

from stellwerk.tabular_dataset import TabularDataset

__all__ = ["TabularDataset"]
