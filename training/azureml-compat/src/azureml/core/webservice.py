"""The v1 SDK's web services: names that can be imported and refuse to be used."""

from azureml._refusal import Refused
from azureml.exceptions import WebserviceException


class Webservice(metaclass=Refused):
    """Refused."""

    reason = (
        "Stellwerk does not deploy models yet. Download the model with Model.download() "
        "and serve it with a server of your own."
    )


class AciWebservice(Webservice):
    """Refused."""


class AksWebservice(Webservice):
    """Refused."""


class LocalWebservice(Webservice):
    """Refused."""


__all__ = ["AciWebservice", "AksWebservice", "LocalWebservice", "Webservice", "WebserviceException"]
