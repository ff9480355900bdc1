"""Why a run waits, in words: reason, message, and what would let it go on. Pure."""

from dataclasses import dataclass

from stellwerk.api import QueueView


@dataclass(frozen=True, slots=True)
class PoolState:
    """What the answer depends on.

    ``growing_to`` is set while executors owe nodes; ``room``: nodes they could still be asked for.
    """

    pool: str
    max_nodes: int
    nodes: int = 0
    free_slots: int = 0
    growing_to: int | None = None
    room: int = 0
    executors: int = 0
    silent: int = 0
    running: tuple[str, ...] = ()


def explain(state: PoolState, before: int, *, capped: bool = False, lacks: str = "") -> QueueView:
    """The answer for a run with ``before`` runs ahead of it.

    ``capped``: there are at least so many. ``lacks``: what every machine with a free slot has
    too little of at the moment.
    """
    reason, message, unblock = _why(state, before, lacks)
    if before:
        count = f"more than {before:,}" if capped else f"{before:,}"
        message = f"{message}; {count} {'run is' if before == 1 else 'runs are'} before it"
    return QueueView(
        pool=state.pool, position=before + 1, reason=reason, message=message, unblock=unblock
    )


def delayed(state: PoolState, attempt: int, seconds: float) -> QueueView:
    """The answer for a run that waits before its next attempt."""
    return QueueView(
        pool=state.pool,
        position=1,
        reason="retry-delay",
        message=f"attempt {attempt} begins in {max(0.0, seconds):.0f} s",
        unblock="nothing to do",
    )


def _why(state: PoolState, before: int, lacks: str) -> tuple[str, str, str]:
    pool = state.pool
    if state.executors == 0:
        message = f"no executor provides nodes for {pool}"
        if state.silent:
            message += f" ({state.silent} known, none responding)"
        return "no-executor", message, "start a gpu-executor that serves this pool"
    if lacks:
        return "resources-busy", f"{pool}: {lacks}", "the end of a run that uses them"
    if state.free_slots > before:
        return "next", f"a slot of {pool} is free", "nothing to do: it starts at once"
    if state.growing_to is not None:
        message = f"{pool} grows from {state.nodes} to {state.growing_to} nodes"
        return "scaling", message, "nothing to do: nodes are on their way"
    who = f" ({', '.join(state.running)})" if state.running else ""
    if state.nodes >= state.max_nodes:
        message = f"all slots of {pool} are taken; it is at its maximum of {state.max_nodes} nodes"
        return "pool-full", message, f"the end of a run{who}, or a larger max_nodes"
    if state.room > 0:
        message = f"{pool} has {state.nodes} of {state.max_nodes} nodes; it is about to grow"
        return "scaling", message, "nothing to do: nodes are asked for"
    message = f"{pool} has {state.nodes} of {state.max_nodes} nodes; its executors have no more"
    return "executors-full", message, f"the end of a run{who}, or another executor"
