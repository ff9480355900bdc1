"""The v1 SDK's Experiment."""

from stellwerk.experiment import Experiment

__all__ = ["Experiment"]
