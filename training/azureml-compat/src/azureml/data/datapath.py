"""Places of a datastore."""

from stellwerk.datapath import DataPath, DataPathComputeBinding

__all__ = ["DataPath", "DataPathComputeBinding"]
