"""Ways to make datasets, and types of columns."""

from stellwerk.dataset import FileDatasetFactory
from stellwerk.tabular_factory import DataType, TabularDatasetFactory

__all__ = ["DataType", "FileDatasetFactory", "TabularDatasetFactory"]
