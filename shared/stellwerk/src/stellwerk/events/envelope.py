"""CloudEvents 1.0 in NATS binary mode: metadata in ``ce-`` headers, the body is the data.

Source: CloudEvents NATS protocol binding 1.0.3-wip, binary content mode. Values are
percent-encoded as it asks. ``Nats-Msg-Id`` equals ``ce-id``: the broker and every inbox drop a
repeat of the same fact.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import quote, unquote

from pydantic import ValidationError

from stellwerk.errors import ProtocolError
from stellwerk.events.base import MAX_EVENT_BYTES, REGISTRY, Event
from stellwerk.refusals import reason

_SAFE = "/:+-._~@=,;!*() "
_PLAIN = re.compile(r"[A-Za-z0-9/:+\-._~@=,;!*() ]*")
"""Nothing to encode, which is the rule."""


class UnknownEventTypeError(ProtocolError):
    """The type is not in the registry: a newer release may send it; readers count and ignore."""

    code = "event.unknown_type"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One event with its metadata, ready to publish or just received."""

    event: Event
    id: str
    source: str
    time: datetime
    sequence: int | None = None
    correlation_id: str | None = None
    causation_id: str | None = None

    @classmethod
    def wrap(
        cls,
        event: Event,
        *,
        source: str,
        time: datetime,
        sequence: int | None = None,
        correlation_id: str | None = None,
        causation_id: str | None = None,
    ) -> "Envelope":
        """Envelope for a new fact.

        ``sequence`` is the aggregate's own gap-free number, from its owner's row; with it the id
        is ``<aggregate>/<id>/<sequence>``.
        """
        number = f"{event.aggregate}/{event.aggregate_id}/{sequence}"
        return cls(
            event=event,
            id=event.event_id() if sequence is None else number,
            source=source,
            time=time,
            sequence=sequence,
            correlation_id=correlation_id or getattr(event, "run_id", None),
            causation_id=causation_id,
        )

    def body(self) -> bytes:
        """The event's data. Raises ProtocolError beyond 256 KiB, which no reader takes."""
        data = self.event.data()
        if len(data) > MAX_EVENT_BYTES:
            raise ProtocolError(
                f"{self.event.type_name()} is {len(data)} bytes; the limit is {MAX_EVENT_BYTES}",
                code="event.too_large",
            )
        return data

    def headers(self) -> dict[str, str]:
        """NATS headers of this event."""
        fields = {
            "ce-specversion": "1.0",
            "ce-id": self.id,
            "ce-type": self.event.type_name(),
            "ce-source": self.source,
            "ce-subject": self.event.aggregate_id,
            "ce-time": self.time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            "ce-datacontenttype": "application/json",
            "ce-sequence": None if self.sequence is None else str(self.sequence),
            "ce-correlationid": self.correlation_id,
            "ce-causationid": self.causation_id,
        }
        headers = {name: _quoted(text) for name, text in fields.items() if text}
        return {**headers, "Nats-Msg-Id": headers["ce-id"], "Content-Type": "application/json"}


def _quoted(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quote(text, safe=_SAFE)


def decode(
    subject: str,
    headers: dict[str, str] | None,
    body: bytes,
    stored_at: datetime | None = None,
) -> Envelope:
    """Envelope from a received message.

    ``stored_at``, when the broker stored it, is the time of an event without ``ce-time``: any
    client may publish a submission, and few send the optional headers.

    Raises UnknownEventTypeError for a type this release does not know, ProtocolError for
    anything malformed: no headers, a body that does not validate, a subject that does not
    belong to the body.
    """
    meta = {
        name.lower(): unquote(text) if "%" in text else text
        for name, text in (headers or {}).items()
    }
    type_name, event_id = meta.get("ce-type"), meta.get("ce-id")
    if not type_name or not event_id:
        raise ProtocolError("event has no ce-type or ce-id header", code="event.headers")
    if len(body) > MAX_EVENT_BYTES:
        raise ProtocolError(
            f"event is {len(body)} bytes; limit {MAX_EVENT_BYTES}", code="event.too_large"
        )
    known = REGISTRY.get(type_name)
    if known is None:
        raise UnknownEventTypeError(f"unknown event type {type_name[:100]!r}")
    try:
        event = known.model_validate_json(body)
        belongs = event.subject() == subject
    except (ValidationError, ValueError) as error:
        raise ProtocolError(f"{type_name}: {_first_line(error)}", code="event.malformed") from error
    if not belongs:
        raise ProtocolError(
            f"{type_name} does not belong on {subject}", code="event.subject_mismatch"
        )
    return Envelope(
        event=event,
        id=event_id,
        source=meta.get("ce-source", ""),
        time=_time(meta.get("ce-time"), stored_at),
        sequence=_sequence(meta.get("ce-sequence")),
        correlation_id=meta.get("ce-correlationid"),
        causation_id=meta.get("ce-causationid"),
    )


def _time(text: str | None, stored_at: datetime | None) -> datetime:
    if not text:
        return stored_at or datetime.fromtimestamp(0, UTC)
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise ProtocolError(
            f"ce-time {text!r} is no RFC 3339 time", code="event.headers"
        ) from error
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _sequence(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise ProtocolError(
            f"ce-sequence {text[:40]!r} is no positive number", code="event.headers"
        )
    return int(text)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        return f"{field}: {reason(first)}" if field else reason(first)
    return str(error).splitlines()[0]
