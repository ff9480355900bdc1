"""How a run gets a dataset."""

from stellwerk.dataset_consumption import DatasetConsumptionConfig

__all__ = ["DatasetConsumptionConfig"]
