"""The v1 SDK's Keyvault."""

from azureml._refusal import Refused


class Keyvault(metaclass=Refused):
    """Refused."""

    reason = "there is no key vault yet"
