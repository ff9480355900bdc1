"""Every subject on the bus is built here and nowhere else.

``sw.evt.<aggregate>.<id>.<event>[.<addressee>]``  facts, one writer a hierarchy
``sw.log.<owner>.<attempt>.<stream>``              raw log bytes
``sw.metric.<run>.<attempt>``                      batches of in-run records
``sw.rpc.<service>.<verb>``                        core request/reply
``sw.dead.<consumer>``                             dead letters
"""

import hashlib

from stellwerk.errors import ProtocolError
from stellwerk.ids import is_id

EVENTS = "sw.evt.>"
LOGS = "sw.log.>"
METRICS = "sw.metric.>"
DEAD = "sw.dead.>"


def event(aggregate: str, aggregate_id: str, verb: str, addressee: str | None = None) -> str:
    """Subject of one fact. Raises ProtocolError where a part is no legal token."""
    tokens = [aggregate, aggregate_id, verb] + ([addressee] if addressee else [])
    return "sw.evt." + ".".join(_token(token) for token in tokens)


def events_of(aggregate: str, aggregate_id: str = "*") -> str:
    """Subscription to all facts of one aggregate, or of one of its ids."""
    return f"sw.evt.{_token(aggregate)}.{'*' if aggregate_id == '*' else _token(aggregate_id)}.>"


def log(owner: str, attempt: int, stream: str) -> str:
    """Log bytes of a run's attempt, or of an environment's build (owner = environment id)."""
    return f"sw.log.{_token(owner)}.{attempt}.{_token(stream)}"


def file_stream(path: str) -> str:
    """The log stream of a file under ``./logs``."""
    return f"f-{hashlib.sha256(path.encode()).hexdigest()[:12]}"


def metric(run: str, attempt: int) -> str:
    """Batches of in-run records of one attempt."""
    return f"sw.metric.{_token(run)}.{attempt}"


def rpc(service: str, verb: str) -> str:
    """Request/reply subject of one verb of a service."""
    return f"sw.rpc.{_token(service)}.{_token(verb)}"


def dead(consumer: str) -> str:
    """Dead letters of one consumer."""
    return f"sw.dead.{_token(consumer)}"


def _token(text: str) -> str:
    if not is_id(text):
        raise ProtocolError(
            f"subject token: got {text[:60]!r}; allowed are 1 to 40 of a-z 0-9 and '-'"
        )
    return text
