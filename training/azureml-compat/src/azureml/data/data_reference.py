"""Places of a datastore that runs get as folders."""

from stellwerk.datapath import DataReference

__all__ = ["DataReference"]
