"""The v1 SDK's Model."""

from stellwerk.model import Model

__all__ = ["Model"]
