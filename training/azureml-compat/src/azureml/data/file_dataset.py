"""The v1 SDK's datasets of files."""

from stellwerk.file_dataset import FileDataset

__all__ = ["FileDataset"]
