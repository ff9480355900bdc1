"""How many nodes a pool should have, and of which executors. Pure.

"N nodes at generation g", never "one more": whatever gets lost or comes twice, the last target
is the truth. A pool grows at once and shrinks node by node, each after its own idle time.
"""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PoolNodes:
    """A pool's usable nodes in figures; ``free_on_busy``: free slots on nodes that work."""

    busy: int = 0
    idle: int = 0
    free_on_busy: int = 0


@dataclass(frozen=True, slots=True)
class Provider:
    """An executor as a pool sees it: nodes asked of it for this pool, and how many more it has."""

    executor_id: str
    size: int
    room: int


@dataclass(frozen=True, slots=True)
class Bounds:
    """A pool's limits."""

    min_nodes: int
    max_nodes: int
    slots_per_node: int


@dataclass(frozen=True, slots=True)
class IdleNode:
    """A node without work. ``expired``: idle for longer than the pool keeps it."""

    node_id: str
    executor_id: str
    expired: bool


def wanted(bounds: Bounds, nodes: PoolNodes, demand: int) -> int:
    """How many nodes the present work needs, within the pool's bounds."""
    overflow = max(0, demand - nodes.free_on_busy)
    needed = nodes.busy + -(-overflow // bounds.slots_per_node)
    return max(bounds.min_nodes, min(bounds.max_nodes, needed))


def grow(total: int, providers: Sequence[Provider]) -> dict[str, int]:
    """New sizes that bring the sum up to ``total``, as far as there is room; most room first."""
    sizes = {p.executor_id: p.size for p in providers}
    room = {p.executor_id: p.room for p in providers}
    missing = total - sum(sizes.values())
    for _ in range(missing):
        best = max(room, key=lambda name: (room[name], name), default=None)
        if best is None or room[best] <= 0:
            break
        sizes[best] += 1
        room[best] -= 1
    old = {p.executor_id: p.size for p in providers}
    return {name: size for name, size in sizes.items() if size != old[name]}


def shrink(bounds: Bounds, total: int, needed: int, idle: Sequence[IdleNode]) -> list[IdleNode]:
    """Idle nodes to take away: expired ones, and any that are above the maximum."""
    above = max(0, total - bounds.max_nodes)
    spare = max(0, total - max(needed, bounds.min_nodes))
    leave = [node for node in idle if node.expired][:spare]
    for node in idle:
        if len(leave) >= above:
            break
        if node not in leave:
            leave.append(node)
    return leave
