"""The v1 SDK's Datastore."""

from stellwerk.datastore import Datastore

__all__ = ["Datastore"]
