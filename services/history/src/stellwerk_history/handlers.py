"""What history does with each message: events, log chunks, batches of records.

A handler gets messages in stream order (``stream.py``), writes one transaction, and then wakes
those who wait. What cannot be read is counted and left out; only a store that cannot write makes
a batch come again.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC
from urllib.parse import unquote

import structlog
from prometheus_client import Counter

from stellwerk.errors import ProtocolError
from stellwerk.ids import is_id
from stellwerk_history.closing import LogKey
from stellwerk_history.log_store import Chunk, LogStore
from stellwerk_history.metric_store import Message, MetricStore
from stellwerk_history.store import Fact, ProjectionStore
from stellwerk_history.stream import Handle
from stellwerk_history.wakeups import Wakeups, log_key, metric_key, run_key
from stellwerk_kit.consumer import Delivery
from stellwerk_kit.failpoints import failpoint

MAX_ATTEMPT = 1_000_000
MAX_OFFSET = 1 << 50

UNREADABLE = Counter("stellwerk_history_unreadable", "Messages that are left out", ["what"])

log = structlog.get_logger()


def on_events(store: ProjectionStore, wakeups: Wakeups, finalizing: Callable[[], None]) -> Handle:
    """Project events; ``finalizing`` is called when a run waits to be archived."""

    async def handle(deliveries: list[Delivery]) -> None:
        facts = []
        for delivery in deliveries:
            try:
                envelope = delivery.decode()
                utc = replace(envelope, time=envelope.time.astimezone(UTC))
                facts.append(Fact(utc, delivery.stream_sequence))
            except (ProtocolError, OverflowError) as error:
                _left_out("event", delivery, str(error))
        done = await store.project(facts, deliveries[-1].stream_sequence)
        failpoint("history.events_projected")
        wakeups.notify(run_key(run_id) for run_id in done.run_ids)
        if done.finalizing:
            finalizing()

    return handle


def on_logs(store: LogStore, wakeups: Wakeups) -> Handle:
    """Append log chunks."""

    async def handle(deliveries: list[Delivery]) -> None:
        chunks = [chunk for each in deliveries if (chunk := read_chunk(each)) is not None]
        owners = await store.append(chunks, deliveries[-1].stream_sequence)
        wakeups.notify(log_key(owner) for owner in owners)

    return handle


def on_metrics(store: MetricStore, wakeups: Wakeups) -> Handle:
    """Store batches of records."""

    async def handle(deliveries: list[Delivery]) -> None:
        messages = []
        for delivery in deliveries:
            tokens = delivery.subject.split(".")
            attempt = _number(tokens[3], MAX_ATTEMPT) if len(tokens) == 4 else None
            if attempt is None or not is_id(tokens[2]):
                _left_out("records", delivery, "the subject is not sw.metric.<run>.<attempt>")
                continue
            messages.append(Message(tokens[2], attempt, delivery.body))
        run_ids = await store.add(messages, deliveries[-1].stream_sequence)
        wakeups.notify(metric_key(run_id) for run_id in run_ids)

    return handle


def read_chunk(delivery: Delivery) -> Chunk | None:
    """The chunk in a message of ``sw.log.>``; None, counted, for one that breaks the form."""
    tokens = delivery.subject.split(".")
    headers = {name.lower(): text for name, text in delivery.headers.items()}
    offset = _number(headers.get("sw-offset", ""), MAX_OFFSET)
    attempt = _number(tokens[3], MAX_ATTEMPT) if len(tokens) == 5 else None
    if attempt is None or not is_id(tokens[2]) or not is_id(tokens[4]):
        _left_out("log", delivery, "the subject is not sw.log.<owner>.<attempt>.<stream>")
        return None
    if offset is None:
        _left_out("log", delivery, "Sw-Offset is no number")
        return None
    path = headers.get("sw-path")
    return Chunk(
        key=LogKey(tokens[2], attempt, tokens[4]),
        offset=offset,
        data=delivery.body,
        path=unquote(path) if path else None,
        final=headers.get("sw-final") == "1",
    )


def _number(text: str, limit: int) -> int | None:
    if not text.isascii() or not text.isdecimal() or len(text) > 18 or int(text) > limit:
        return None
    return int(text)


def _left_out(what: str, delivery: Delivery, why: str) -> None:
    UNREADABLE.labels(what).inc()
    log.warning(
        "message left out",
        action="message_left_out",
        subject=delivery.subject[:200],
        sequence=delivery.stream_sequence,
        why=why[:500],
    )
