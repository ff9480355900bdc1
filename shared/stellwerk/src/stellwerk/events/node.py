"""Facts of the node aggregate. Owner: each gpu-executor, about itself (key: its own id)."""

from pydantic import BaseModel, ConfigDict, Field

from stellwerk.events.base import Event, event


class Gpu(BaseModel):
    """One GPU as its driver reports it. Memory in MiB."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    index: int
    name: str
    memory_mb: int


class NodeResources(BaseModel):
    """What a machine has. Memory in MiB."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    cpus: int
    memory_mb: int
    gpus: tuple[Gpu, ...] = ()


@event(aggregate="node", verb="joined", owner="gpu-executor", key="executor_id")
class NodeJoined(Event):
    """An executor is there and can provide up to ``max_nodes`` nodes.

    ``boot_id`` is new at each start of its process; ``nodes`` maps each pool to the node ids it
    already provides (after a restart it provides them again). ``pools`` restricts it to some
    pools; empty means any.
    """

    executor_id: str
    boot_id: str
    hostname: str
    resources: NodeResources
    max_nodes: int
    pools: tuple[str, ...] = ()
    nodes: dict[str, tuple[str, ...]] = {}
    url: str | None = None

    def discriminator(self) -> str:
        """The boot."""
        return self.boot_id


@event(aggregate="node", verb="scaled", owner="gpu-executor", key="executor_id")
class NodeScaled(Event):
    """The nodes this executor provides for a pool changed ``from`` a number ``to`` another."""

    executor_id: str
    boot_id: str
    pool: str
    generation: int
    from_count: int = Field(alias="from")
    to_count: int = Field(alias="to")
    nodes: tuple[str, ...]
    reason: str

    def discriminator(self) -> str:
        """Pool, boot and generation."""
        return f"{self.pool}/{self.boot_id}/{self.generation}"


@event(aggregate="node", verb="draining", owner="gpu-executor", key="executor_id")
class NodeDraining(Event):
    """The executor leaves in an orderly way and takes no more work."""

    executor_id: str
    boot_id: str
    reason: str

    def discriminator(self) -> str:
        """The boot."""
        return self.boot_id
