"""Requests to services that put a name from the address beside a REST body."""

from stellwerk.api import (
    DatasetRegisterRequest,
    DatastoreUploadRequest,
    ModelLineage,
    ModelRequest,
)
from stellwerk.manifest import Manifest
from stellwerk.runspec import Spec


class Registration(Spec):
    """Request of ``dataset-register``."""

    dataset_id: str
    request: DatasetRegisterRequest


class KeyedModel(ModelRequest):
    """Request of ``model-register``; repeats with the same ``key`` are one version."""

    key: str | None = None


class GivenModel(Spec):
    """Request of ``model-register-given``: files of a run that goes on, or that were added to it.

    ``files`` is everything the run has; ``lineage`` is what history knows of it.
    """

    request: ModelRequest
    key: str | None = None
    files: Manifest
    lineage: ModelLineage


class NamedUpload(Spec):
    """Request of ``datastore-upload``."""

    name: str
    request: DatastoreUploadRequest
