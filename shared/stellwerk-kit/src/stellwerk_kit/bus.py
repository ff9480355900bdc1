"""The connection to the broker: durable publishing and request/reply.

The client library is hidden here and in ``consumer.py``. Publishing repeats the same message id
until the broker acknowledged it, so a time-out never means a second fact.
"""

import asyncio
import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlsplit

import structlog
from nats.errors import Error as NatsError
from nats.errors import NoRespondersError
from nats.js import JetStreamContext
from nats.js.errors import APIError, NotFoundError
from pydantic import BaseModel

from stellwerk import subjects
from stellwerk.errors import ConflictError, ServiceUnavailableError
from stellwerk.events import Envelope, decode
from stellwerk_kit import telemetry
from stellwerk_kit.rpc import RawReply, decode_reply
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.wire import Message, Wire

PUBLISH_TIMEOUT_S = 5.0
WRONG_LAST_SEQUENCE = 10071
_STORED = re.compile(rb'\{"stream":"[A-Z_]+",\s?"seq":(\d+)(,\s?"duplicate":\s?true)?\}')
"""The usual acknowledgement; anything else is read as JSON."""

log = structlog.get_logger()
Reply = TypeVar("Reply", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Published:
    """The broker's acknowledgement. ``duplicate``: it had the message already."""

    sequence: int
    duplicate: bool


@dataclass
class Bus:
    """One connection. Make it with :meth:`connect`."""

    client: Wire
    js: JetStreamContext
    name: str
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the connection is closed for good; the service then ends with an error."""
    on_reconnect: set[Callable[[], None]] = field(default_factory=set)
    """Called when the broker is back: it has forgotten the pulls of before."""

    @classmethod
    async def connect(
        cls, settings: ServiceSettings, name: str, *, attempts_s: float = 30.0
    ) -> "Bus":
        """Connect, waiting up to ``attempts_s`` seconds for the broker.

        Raises ServiceUnavailableError when it does not answer in that time.
        """
        credentials = settings.read_credentials(settings.nats_credentials)
        bus = cls(client=Wire(), js=None, name=name)  # type: ignore[arg-type]  # set below
        deadline = asyncio.get_running_loop().time() + attempts_s
        while True:
            try:
                await _probe(settings.nats_url)
                bus.client = Wire()
                await bus.client.connect(
                    settings.nats_url,
                    name=f"stellwerk-{name}",
                    user=credentials.get("user"),
                    password=credentials.get("password"),
                    inbox_prefix=f"_INBOX_{credentials.get('user', name)}".encode(),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.2,  # type: ignore[arg-type]  # seconds, any number
                    connect_timeout=5,
                    ping_interval=10,
                    max_outstanding_pings=3,
                    pending_size=-1,
                    error_cb=bus._on_error,
                    disconnected_cb=bus._on_disconnect,
                    reconnected_cb=bus._on_reconnect,
                    closed_cb=bus._on_closed,
                    lame_duck_mode_cb=bus._on_lame_duck,
                )
                break
            except (OSError, NatsError, TimeoutError) as error:
                if asyncio.get_running_loop().time() > deadline:
                    raise ServiceUnavailableError(
                        f"the broker at {settings.nats_url} does not answer: {error}",
                        code="bus.down",
                    ) from error
                await asyncio.sleep(0.05)
        await bus.client.begin()
        bus.js = bus.client.jetstream(timeout=PUBLISH_TIMEOUT_S)
        return bus

    @property
    def connected(self) -> bool:
        """Whether the broker can be reached right now."""
        return self.client.is_connected

    async def publish(self, envelope: Envelope, *, expect_first: bool = False) -> Published:
        """Publish one event and wait for the broker's acknowledgement, once.

        With ``expect_first`` the fact must be the first on its subject: a repeat of the same id
        answers ``duplicate``, another fact raises ConflictError. Raises
        ServiceUnavailableError when the broker does not acknowledge in 5 seconds; the caller
        may repeat the same envelope. Raises ProtocolError for an event beyond 256 KiB.
        """
        headers = envelope.headers()
        subject = envelope.event.subject()
        if expect_first:
            headers["Nats-Expected-Last-Subject-Sequence"] = "0"
        try:
            done = await self.publish_raw(subject, envelope.body(), headers)
        except APIError as error:
            if not expect_first or error.err_code != WRONG_LAST_SEQUENCE:
                raise ServiceUnavailableError(
                    f"the broker refused {subject}: {error.description}", code="bus.refused"
                ) from error
            done = await self._first_on(subject, envelope)
        telemetry.PUBLISHED.labels(envelope.event.type_name()).inc()
        return done

    async def publish_raw(self, subject: str, body: bytes, headers: dict[str, str]) -> Published:
        """Publish bytes and wait for the acknowledgement; raises like :meth:`publish`."""
        try:
            answer = await self.client.ask(subject, body, headers, PUBLISH_TIMEOUT_S)
        except (TimeoutError, NatsError, OSError) as error:
            raise ServiceUnavailableError(
                f"the broker does not acknowledge: {error or type(error).__name__}", code="bus.down"
            ) from error
        return _published(answer)

    def store(
        self,
        subject: str,
        body: bytes,
        headers: dict[str, str],
        done: Callable[[Exception | None], None],
    ) -> None:
        """Publish bytes once; ``done`` is told when the broker has them, or why it has not."""

        def answered(message: Message | None) -> None:
            if message is None or message.unheard:
                done(TimeoutError("the broker does not acknowledge"))
                return
            try:
                _published(message)
            except (APIError, ServiceUnavailableError) as error:
                done(error)
            else:
                done(None)

        try:
            self.client.post(subject, body, headers, PUBLISH_TIMEOUT_S, answered)
        except NatsError as error:
            asyncio.get_running_loop().call_soon(done, error)

    async def last_event(self, subject: str) -> Envelope | None:
        """The latest fact on one literal subject, None if there is none (any more).

        Raises ServiceUnavailableError when the broker does not tell.
        """
        try:
            stored = await self.js.get_last_msg("SW_EVENTS", subject)
        except NotFoundError:
            return None
        except (TimeoutError, NatsError, OSError) as error:
            raise ServiceUnavailableError(
                f"the broker does not tell what is on {subject}", code="bus.down"
            ) from error
        return decode(subject, stored.headers, stored.data or b"", stored.time)

    async def last_sequence(self, stream: str, subject: str) -> int | None:
        """Stream sequence of the latest message on one literal subject, None if there is none.

        Raises ServiceUnavailableError when the broker does not tell.
        """
        try:
            return (await self.js.get_last_msg(stream, subject)).seq
        except NotFoundError:
            return None
        except (TimeoutError, NatsError, OSError) as error:
            raise ServiceUnavailableError(
                f"the broker does not tell what is on {subject}", code="bus.down"
            ) from error

    async def publish_until_stored(
        self, subject: str, body: bytes, headers: dict[str, str]
    ) -> Published:
        """Publish with the same id again and again until the broker has it."""
        delay = 0.05
        while True:
            try:
                return await self.publish_raw(subject, body, headers)
            except (ServiceUnavailableError, APIError) as error:
                log.warning(
                    "publish again", action="publish_retry", subject=subject, error=str(error)
                )
                await asyncio.sleep(delay * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                delay = min(2.0, delay * 2)

    async def _first_on(self, subject: str, envelope: Envelope) -> Published:
        """A fact is on the subject already: ours means success, else it is a conflict."""
        try:
            stored = await self.js.get_last_msg("SW_EVENTS", subject)
        except (NotFoundError, TimeoutError, NatsError) as error:
            raise ServiceUnavailableError(
                f"the broker does not tell what is on {subject}", code="bus.down"
            ) from error
        headers = {key.lower(): text for key, text in (stored.headers or {}).items()}
        same = headers.get("nats-msg-id") == envelope.headers()["Nats-Msg-Id"]
        if not same or json.loads(stored.data or b"{}") != json.loads(envelope.event.data()):
            raise ConflictError(
                "this id was used before with another content", code="idempotency.conflict"
            )
        return Published(sequence=stored.seq or 0, duplicate=True)

    async def call(
        self,
        service: str,
        verb: str,
        request: BaseModel | dict[str, Any],
        reply: type[Reply],
        timeout_s: float = 5.0,
    ) -> Reply:
        """Ask a service; raises what the callee raised, or ServiceUnavailableError."""
        raw = await self.call_raw(service, verb, request, timeout_s)
        return reply.model_validate_json(raw.body)

    async def call_raw(
        self, service: str, verb: str, request: BaseModel | dict[str, Any], timeout_s: float = 5.0
    ) -> RawReply:
        """Like :meth:`call`, with the reply's bytes and headers as they came."""
        if isinstance(request, BaseModel):
            body = request.model_dump_json(by_alias=True).encode()
        else:
            body = json.dumps(request).encode()
        try:
            message = await self.client.ask(subjects.rpc(service, verb), body, None, timeout_s)
        except NoRespondersError as error:
            raise ServiceUnavailableError(
                f"the {service} service is not there", code=f"{service}.down"
            ) from error
        except (TimeoutError, NatsError, OSError) as error:
            down = "bus.down" if not self.connected else f"{service}.timeout"
            raise ServiceUnavailableError(
                f"the {service} service does not answer", code=down
            ) from error
        return decode_reply(message.headers, message.data)

    async def serve(self, service: str, verb: str, answer: Callable[[Message], None]) -> None:
        """Answer a verb; replicas of a service share the requests."""
        await self.client.listen(subjects.rpc(service, verb), answer, queue=service)

    async def flush(self) -> None:
        """Wait until the broker has all that was sent so far.

        Twice, because the client's ping overtakes what its flusher has not written yet.
        """
        await self.client.flush(5)
        await self.client.flush(5)

    async def close(self) -> None:
        """Flush what is under way and close."""
        if self.client.is_closed:
            return
        try:
            await asyncio.wait_for(self.flush(), 6)
        except (TimeoutError, NatsError, OSError):
            log.warning("flush before close failed", action="bus_flush_failed")
        await self.client.close()

    async def _on_error(self, error: Exception) -> None:
        log.warning("bus error", action="bus_error", error=str(error) or type(error).__name__)

    async def _on_disconnect(self) -> None:
        log.warning("bus disconnected", action="bus_disconnected")

    async def _on_reconnect(self) -> None:
        log.info("bus reconnected", action="bus_reconnected")
        self.client.write_soon()
        for call in list(self.on_reconnect):
            call()

    async def _on_closed(self) -> None:
        self.lost.set()

    async def _on_lame_duck(self) -> None:
        log.info("broker is shutting down", action="bus_lame_duck")


def _published(answer: Message) -> Published:
    """The broker's acknowledgement.

    Raises APIError where it refuses, ServiceUnavailableError for an answer that is none.
    """
    stored = _STORED.fullmatch(answer.data)
    if stored is not None:
        return Published(sequence=int(stored[1]), duplicate=bool(stored[2]))
    try:
        ack = json.loads(answer.data)
        if "error" in ack:
            APIError.from_error(ack["error"])
        return Published(sequence=ack["seq"], duplicate=ack.get("duplicate", False))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ServiceUnavailableError(
            "the broker's acknowledgement cannot be read", code="bus.refused"
        ) from error


async def _probe(url: str) -> None:
    """Fail at once while nothing listens: the client's own first retry would sleep two seconds."""
    address = urlsplit(url)
    _, writer = await asyncio.open_connection(address.hostname, address.port or 4222)
    writer.close()
