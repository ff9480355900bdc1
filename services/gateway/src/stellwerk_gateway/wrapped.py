"""Requests to services that put a name from the address beside a REST body."""

from stellwerk.api import DatasetRegisterRequest, DatastoreUploadRequest
from stellwerk.runspec import Spec


class Registration(Spec):
    """Request of ``dataset-register``."""

    dataset_id: str
    request: DatasetRegisterRequest


class NamedUpload(Spec):
    """Request of ``datastore-upload``."""

    name: str
    request: DatastoreUploadRequest
