"""Facts of the pool aggregate (a cluster's nodes). Owner: the scheduler."""

from stellwerk.events.base import Event, event


@event(aggregate="pool", verb="target-set", owner="scheduler", key="pool", addressee="executor_id")
class PoolTargetSet(Event):
    """So many nodes of a pool are wanted from one executor: "N at generation g", never "+1".

    ``drain`` names the nodes to take away first: they are idle and get no more work.
    """

    pool: str
    executor_id: str
    size: int
    generation: int
    reason: str
    slots_per_node: int = 1
    drain: tuple[str, ...] = ()

    def discriminator(self) -> str:
        """The generation."""
        return f"{self.executor_id}/{self.generation}"


@event(aggregate="pool", verb="node-lost", owner="scheduler", key="pool")
class NodeLost(Event):
    """All leases of a node expired."""

    pool: str
    node_id: str
    executor_id: str
    reason: str
    boot_id: str = ""

    def discriminator(self) -> str:
        """Node and boot."""
        return f"{self.node_id}/{self.boot_id}"
