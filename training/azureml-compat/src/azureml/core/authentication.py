"""The v1 SDK's ways to log in: all are accepted, and the platform's own token is used."""

from collections.abc import Callable
from enum import Enum

from stellwerk.config import discover


class Audience(Enum):
    """Whom a token is for. Has no meaning here."""

    ARM = "ARM"
    AZUREML = "AzureML"
    AZURE_ML = AZUREML
    arm = ARM
    aml = AZUREML  # noqa: PIE796 - both spellings are in use


class AbstractAuthentication:
    """Any of the ways; what it is given is not looked at and not kept."""

    def get_authentication_header(self) -> dict[str, str]:
        """The header with the token of the platform that is configured here."""
        return {"Authorization": f"Bearer {self.get_token()}"}

    def get_token(self, *_audience: object) -> str:
        """The token of the platform that is configured here."""
        return discover().token


class InteractiveLoginAuthentication(AbstractAuthentication):
    """Nobody is asked anything."""

    def __init__(
        self, force: bool = False, tenant_id: str | None = None, cloud: str | None = None
    ) -> None:
        del force, tenant_id, cloud


class AzureCliAuthentication(AbstractAuthentication):
    """No command line is called."""

    def __init__(self, cloud: str | None = None) -> None:
        del cloud


class MsiAuthentication(AbstractAuthentication):
    """No identity is looked for."""

    def __init__(self, identity_config: object = None, cloud: str | None = None) -> None:
        del identity_config, cloud


class ServicePrincipalAuthentication(AbstractAuthentication):
    """The password is not kept."""

    def __init__(
        self,
        tenant_id: str,
        service_principal_id: str,
        service_principal_password: str,
        cloud: str | None = None,
        _enable_caching: bool = True,
    ) -> None:
        del tenant_id, service_principal_id, service_principal_password, cloud, _enable_caching


class TokenAuthentication(AbstractAuthentication):
    """The function is not called."""

    def __init__(
        self, get_token_for_audience: Callable[[Audience], str], cloud: str | None = None
    ) -> None:
        del get_token_for_audience, cloud


__all__ = [
    "AbstractAuthentication",
    "Audience",
    "AzureCliAuthentication",
    "InteractiveLoginAuthentication",
    "MsiAuthentication",
    "ServicePrincipalAuthentication",
    "TokenAuthentication",
]
