"""Which node a run gets, and which runs no machine can ever take. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from stellwerk.events import NodeResources
from stellwerk.events.base import MAX_EVENT_BYTES
from stellwerk.runspec import Resources
from stellwerk_scheduler import endings
from stellwerk_scheduler.model import Decision, Failure, Limits, Run


@dataclass(frozen=True, slots=True)
class FreeNode:
    """A node with at least one free slot."""

    node_id: str
    executor_id: str
    slots: int = 1


@dataclass(frozen=True, slots=True)
class Machine:
    """An executor's machine and what live attempts asked of it."""

    resources: NodeResources
    used: Resources


def choose(
    needs: Resources, free: Sequence[FreeNode], machines: dict[str, Machine]
) -> FreeNode | None:
    """The first free node whose machine has what is asked for."""
    for node in free:
        machine = machines.get(node.executor_id)
        if machine is not None and not lacking(needs, machine.resources, machine.used):
            return node
    return None


def without_slot(free: Sequence[FreeNode], node_id: str) -> list[FreeNode]:
    """The free nodes after one slot of ``node_id`` was given away."""
    left = [replace(n, slots=n.slots - (n.node_id == node_id)) for n in free]
    return [node for node in left if node.slots > 0]


def lacking(needs: Resources, has: NodeResources, used: Resources | None = None) -> str:
    """What a machine has too little of, with the figures; empty if nothing."""
    taken = used or Resources()
    cpus, memory = has.cpus - (taken.cpus or 0), has.memory_mb - (taken.memory_mb or 0)
    gpus = len(has.gpus) - taken.gpus
    if needs.gpus > gpus:
        return f"gpus: asked for {needs.gpus}, there are {gpus}"
    if (needs.cpus or 0) > cpus:
        return f"cpus: asked for {needs.cpus:g}, there are {cpus:g}"
    if (needs.memory_mb or 0) > memory:
        return f"memory_mb: asked for {needs.memory_mb}, there are {memory}"
    return ""


def unsatisfiable(needs: Resources, machines: Iterable[NodeResources]) -> Failure | None:
    """The failure of a run that no known machine could take even when idle.

    None while no machine is known: one may join.
    """
    known = list(machines)
    if not known or any(not lacking(needs, machine) for machine in known):
        return None
    largest = max(known, key=lambda m: (len(m.gpus), m.cpus, m.memory_mb))
    why = lacking(needs, largest)
    return Failure(
        "resources.unsatisfiable",
        f"spec.resources.{why} at most on one machine; ask for less, or add a larger machine",
    )


def assign(run: Run, node: FreeNode, now: float, limits: Limits) -> Decision:
    """RunAssigned: the next attempt gets a slot of ``node``.

    The time to start grows with the size of the inputs, which are laid out on the node first. A
    run whose assignment does not fit into one event fails instead.
    """
    event = endings.assigned_event(
        run, run.attempt + 1, node.node_id, node.executor_id, limits.lease_s
    )
    size = len(event.data())
    if size > MAX_EVENT_BYTES:
        message = f"the run's description is {size} bytes; the limit is {MAX_EVENT_BYTES}"
        return endings.failed(replace(run, inputs={}), Failure("spec.too_large", message))
    inputs = sum(resolved.bytes for resolved in run.inputs.values())
    changes = {
        "node_id": node.node_id,
        "executor_id": node.executor_id,
        "deadline": now + limits.starting_s + inputs / limits.starting_bytes_per_s,
        "resend_at": now + limits.resend_s,
        "resends": 0,
        "stopping": None,
    }
    return Decision(event, changes)
