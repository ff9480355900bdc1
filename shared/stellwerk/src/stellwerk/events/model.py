"""Facts of the model aggregate. Owner: the model registry (key: the model's derived id)."""

from stellwerk.events.base import Event, event


@event(aggregate="model", verb="registered", owner="model-registry", key="model_id")
class ModelRegistered(Event):
    """A version of a model exists from now on."""

    model_id: str
    name: str
    version: int
    run_id: str | None
    manifest: str
    files: int
    bytes: int

    def discriminator(self) -> str:
        """The version."""
        return str(self.version)


@event(aggregate="model", verb="deleted", owner="model-registry", key="model_id")
class ModelDeleted(Event):
    """A version of a model was deleted; its number is not used again."""

    model_id: str
    name: str
    version: int

    def discriminator(self) -> str:
        """The version."""
        return str(self.version)
