"""Outputs of runs that become datasets."""

from stellwerk.output_dataset import OutputFileDatasetConfig, OutputTabularDatasetConfig

__all__ = ["OutputFileDatasetConfig", "OutputTabularDatasetConfig"]
