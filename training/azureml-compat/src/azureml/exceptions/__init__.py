"""The v1 SDK's exceptions. Native errors are raised as these; see ``azureml._border``."""

import json
from typing import Any


class AzureMLException(Exception):
    """Root of the tree. ``inner_exception`` is the exception it was raised for, or None."""

    error_code = "SystemError"

    def __init__(
        self,
        exception_message: object = "",
        inner_exception: "BaseException | None" = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(exception_message)
        self.message = str(exception_message)
        self.inner_exception = inner_exception
        self.details = kwargs

    def __str__(self) -> str:
        response = {"error": {"code": self.error_code, "message": self.message}}
        return (
            f"{type(self).__name__}:\n\tMessage: {self.message}\n"
            f"\tInnerException {self.inner_exception}\n"
            f"\tErrorResponse \n{json.dumps(response, indent=4)}"
        )


class UserErrorException(AzureMLException):
    """What the caller gave is wrong."""

    error_code = "UserError"


class AuthenticationException(UserErrorException):
    """The token is missing, wrong or expired."""


class ComputeTargetException(AzureMLException):
    """The compute target does not exist or cannot be made."""


class RunConfigurationException(AzureMLException):
    """A run configuration cannot be used."""


class ExperimentExecutionException(AzureMLException):
    """An experiment could not be carried out, or watching it was interrupted."""


class SnapshotException(AzureMLException):
    """The source folder cannot be taken along."""


class RunEnvironmentException(AzureMLException):
    """There is no run around this process."""


class ActivityFailedException(AzureMLException):
    """A run ended as Failed."""


class WebserviceException(AzureMLException):
    """A model or a service does not exist or cannot be used; ``status_code`` is HTTP's."""

    def __init__(
        self,
        exception_message: object = "",
        status_code: "int | None" = None,
        inner_exception: "BaseException | None" = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(exception_message, inner_exception, **kwargs)
        self.status_code = status_code


class ModelNotFoundException(AzureMLException):
    """A model is not there."""


class ModelPathNotFoundException(AzureMLException):
    """A run has no files at the path a model shall be made of."""


class TrainingException(AzureMLException):
    """Training could not be set up."""


class WorkspaceException(AzureMLException):
    """A workspace cannot be used."""


class ProjectSystemException(AzureMLException):
    """A project's files cannot be used."""


class ServiceException(AzureMLException):
    """The platform cannot answer."""

    error_code = "ServiceError"


class DatasetTimestampMissingError(AzureMLException):
    """A dataset has no column of time."""


__all__ = [
    "ActivityFailedException",
    "AuthenticationException",
    "AzureMLException",
    "ComputeTargetException",
    "DatasetTimestampMissingError",
    "ExperimentExecutionException",
    "ModelNotFoundException",
    "ModelPathNotFoundException",
    "ProjectSystemException",
    "RunConfigurationException",
    "RunEnvironmentException",
    "ServiceException",
    "SnapshotException",
    "TrainingException",
    "UserErrorException",
    "WebserviceException",
    "WorkspaceException",
]
