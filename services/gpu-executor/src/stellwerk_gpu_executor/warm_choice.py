"""What is asked of the warm processes of a node, and what they answer."""

from dataclasses import dataclass

from stellwerk_gpu_executor.forkserver import WarmServer
from stellwerk_gpu_executor.warm_rules import Recipe


@dataclass(frozen=True, slots=True)
class Limits:
    """How many there may be, with how much memory in all, and how often one may fork.

    As many plain ones are kept besides. Behind walls, and where control groups limit memory, each
    has ``memory_bytes`` at most. A run that must have one waits ``turn_s`` seconds at most while as
    many as there may be are loading for others.
    """

    count: int = 2
    memory_bytes: int = 2 * 1024**3
    forks: int = 500
    turn_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Choice:
    """How a run begins: in a fork of ``server``, or cold for a reason.

    ``recipe`` is set where a warm process could serve it.
    """

    server: WarmServer | None = None
    reason: str | None = None
    recipe: Recipe | None = None
