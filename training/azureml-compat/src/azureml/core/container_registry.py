"""The v1 SDK's container registries: accepted; no image of a definition is used."""

from azureml.core._section import Section


class ContainerRegistry(Section):
    """Where an image would come from. The password stays in this process."""

    __slots__ = ("address", "password", "registry_identity", "username")

    def __init__(self) -> None:
        self.address: str | None = None
        self.username: str | None = None
        self.password: str | None = None
        self.registry_identity: object = None
