"""The v1 SDK's compute targets."""

from stellwerk.compute import AmlCompute, ComputeTarget

__all__ = ["AmlCompute", "ComputeTarget"]
