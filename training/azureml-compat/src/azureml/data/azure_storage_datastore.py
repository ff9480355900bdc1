"""Classes of the v1 SDK's datastores: here they are all of one kind."""

from stellwerk.datastore import Datastore

AzureBlobDatastore = Datastore
AzureFileDatastore = Datastore

__all__ = ["AzureBlobDatastore", "AzureFileDatastore"]
