"""Which files of a table have headers."""

from stellwerk.tabular_factory import PromoteHeadersBehavior

__all__ = ["PromoteHeadersBehavior"]
