"""The broker's client with a short way in and out for what a service does all day long.

The library takes a stream, a queue, a task and several futures for each message; a run costs the
platform about a hundred messages. Here messages of a subscription go to a plain function as their
bytes come, and what is sent in one turn of the loop is written at once. Connecting, reconnecting,
pings and everything rare stay the library's.

Source: NATS client protocol (docs.nats.io/reference/reference-protocols/nats-protocol), headers
as of ADR-4, acknowledgement subjects as of ADR-15.
"""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import structlog
from nats.aio.client import Client
from nats.aio.subscription import Subscription
from nats.errors import ConnectionClosedError, NoRespondersError, OutboundBufferLimitError
from nats.protocol.parser import AWAITING_CONTROL_LINE

NO_RESPONDERS = "503"
_LINE, _HEAD = "\r\n", "NATS/1.0\r\n"

log = structlog.get_logger()


class Message:
    """One message as it came. ``data`` is its body; ``headers`` are parsed when asked for."""

    __slots__ = ("_head", "_headers", "_wire", "data", "reply", "subject")

    def __init__(self, wire: "Wire", subject: str, reply: str, data: bytes, head: bytes) -> None:
        self._wire, self._head = wire, head
        self._headers: dict[str, str] | None = None
        self.subject, self.reply, self.data = subject, reply, data

    @property
    def headers(self) -> dict[str, str]:
        """Name → value; the broker's own status lines are ``Status`` and ``Description``."""
        if self._headers is None:
            self._headers = parse_head(self._head) if self._head else {}
        return self._headers

    @property
    def delivered(self) -> int:
        """How many times a stream's message was delivered to its consumer."""
        return self._number(4)

    @property
    def sequence(self) -> int:
        """A message's place in its stream."""
        return self._number(5)

    @property
    def stored_at(self) -> datetime:
        """When the broker stored a stream's message."""
        return datetime.fromtimestamp(self._number(7) / 1e9, UTC)

    @property
    def unheard(self) -> bool:
        """Whether this is the broker's answer in place of somebody who is not there."""
        return not self.data and self.headers.get("Status") == NO_RESPONDERS

    def ack(self) -> None:
        """It was handled."""
        self._wire.send(self.reply)

    def nak(self, delay_s: float = 0.0) -> None:
        """It shall come again, after ``delay_s`` seconds."""
        later = b" " + json.dumps({"delay": int(delay_s * 1e9)}).encode() if delay_s else b""
        self._wire.send(self.reply, b"-NAK" + later)

    def term(self) -> None:
        """It shall never come again."""
        self._wire.send(self.reply, b"+TERM")

    def in_progress(self) -> None:
        """It is still being handled: its time to be acknowledged begins anew."""
        self._wire.send(self.reply, b"+WPI")

    def respond(self, data: bytes, headers: dict[str, str] | None = None) -> None:
        """Answer a request."""
        self._wire.send(self.reply, data, headers)

    def _number(self, place: int) -> int:
        """A number of the acknowledgement's subject, which has two more tokens with a domain."""
        tokens = self.reply.split(".")
        return int(tokens[place if len(tokens) == 9 else place + 2])


Receive = Callable[[Message], None]
Answered = Callable[[Message | None], None]


class Wire(Client):
    """See the module's text."""

    def __init__(self) -> None:
        super().__init__()
        self._receivers: dict[int, Receive] = {}
        self._armed = False
        self._waiting: dict[str, tuple[Answered, asyncio.TimerHandle]] = {}
        self._replies_at = ""
        self._asked = 0

    def send(
        self,
        subject: str,
        data: bytes = b"",
        headers: dict[str, str] | None = None,
        reply: str = "",
    ) -> None:
        """Publish without waiting.

        Raises ConnectionClosedError, OutboundBufferLimitError while there is no connection: what
        was refused must not be sent later.
        """
        if not self.is_connected:
            raise ConnectionClosedError if self.is_closed else OutboundBufferLimitError
        if headers:
            head = format_head(headers)
            sizes = f"{len(head)} {len(head) + len(data)}"
            command = b"".join(
                (f"HPUB {subject} {reply} {sizes}\r\n".encode(), head, data, b"\r\n")
            )
        else:
            command = b"".join((f"PUB {subject} {reply} {len(data)}\r\n".encode(), data, b"\r\n"))
        self._pending.append(command)
        self._pending_data_size += len(command)
        self.write_soon()

    async def listen(self, subject: str, receive: Receive, queue: str = "") -> Subscription:
        """Give each message on ``subject`` to ``receive``, which must not block or raise."""
        number = self._sid + 1
        self._receivers[number] = receive
        return await self.subscribe(subject, queue=queue)

    async def begin(self) -> None:
        """Be ready for :meth:`post` and :meth:`ask`. Called once, when connected."""
        self._replies_at = self.new_inbox()
        await self.listen(f"{self._replies_at}.*", self._answered)

    def post(
        self,
        subject: str,
        data: bytes,
        headers: dict[str, str] | None,
        timeout_s: float,
        done: Answered,
    ) -> None:
        """Publish; ``done`` is called once, with the answer or None after ``timeout_s``.

        Raises like :meth:`send`.
        """
        self._asked += 1
        token = str(self._asked)
        self.send(subject, data, headers, f"{self._replies_at}.{token}")
        timer = asyncio.get_running_loop().call_later(timeout_s, self._overdue, token)
        self._waiting[token] = done, timer

    async def ask(
        self, subject: str, data: bytes, headers: dict[str, str] | None, timeout_s: float
    ) -> Message:
        """Publish and wait for the one answer.

        Raises TimeoutError, and NoRespondersError when nobody listens on ``subject``.
        """
        future: asyncio.Future[Message | None] = asyncio.get_running_loop().create_future()

        def done(message: Message | None) -> None:
            if not future.done():
                future.set_result(message)

        self.post(subject, data, headers, timeout_s, done)
        message = await future
        if message is None:
            raise TimeoutError
        if message.unheard:
            raise NoRespondersError
        return message

    def write_soon(self) -> None:
        """Write what is pending at the end of this turn of the loop."""
        if not self._armed:
            self._armed = True
            asyncio.get_running_loop().call_soon(self._write)

    def receive(self, number: int, subject: bytes, reply: bytes, data: bytes, head: bytes) -> bool:
        """Hand a message over; False where it is not for one of :meth:`listen`."""
        receive = self._receivers.get(number)
        if receive is None:
            return False
        try:
            receive(Message(self, subject.decode(), reply.decode(), data, head))
        except Exception:
            log.exception("a message was not received", action="receive_failed")
        return True

    def _write(self) -> None:
        self._armed = False
        if not self._pending or not self.is_connected or self._transport is None:
            return
        try:
            self._transport.writelines(self._pending)
        except (OSError, RuntimeError):
            return  # the reader sees it too and reconnects, what is pending is written then
        self._pending = []
        self._pending_data_size = 0

    def _answered(self, message: Message) -> None:
        done, timer = self._waiting.pop(message.subject.rpartition(".")[2], (None, None))
        if done is not None and timer is not None:
            timer.cancel()
            done(message)

    def _overdue(self, token: str) -> None:
        done, _ = self._waiting.pop(token)
        done(None)

    def _remove_sub(self, sid: int, max_msgs: int = 0) -> None:
        self._receivers.pop(sid, None)
        super()._remove_sub(sid, max_msgs)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if not self.receive(sid, subject, reply, data, headers or b""):
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _read_loop(self) -> None:
        """The library's loop gets only what is not a whole message for :meth:`listen`."""
        reader: Any = getattr(self._transport, "_io_reader", None)
        if reader is not None:
            rest = reader.feed_data

            def feed(data: bytes) -> None:
                nothing_before = not reader._buffer and not self._ps.buf  # noqa: SLF001
                if nothing_before and self._ps.state == AWAITING_CONTROL_LINE:
                    data = data[self._hand_over(data) :]
                if data:
                    rest(data)

            reader.feed_data = feed
        await super()._read_loop()

    def _hand_over(self, data: bytes) -> int:
        """Receive the messages that ``data`` begins with; how many bytes they are."""
        start = 0
        while data.startswith((b"MSG ", b"HMSG "), start):
            end = data.find(b"\r\n", start)
            words = data[start:end].split()
            if end < 0 or len(words) < 4:
                break
            body = end + 2
            after = body + int(words[-1])
            if after + 2 > len(data):
                break
            with_head = data[start] == ord("H")
            split = body + int(words[-2]) if with_head else body
            reply = words[3] if len(words) == (6 if with_head else 5) else b""
            head = data[body:split]
            if not self.receive(int(words[2]), words[1], reply, data[split:after], head):
                break
            start = after + 2
        return start


def format_head(headers: dict[str, str]) -> bytes:
    """Headers as they travel. Line breaks in a value become spaces."""
    text = _HEAD + "".join([f"{name}: {value}\r\n" for name, value in headers.items()])
    if text.count("\n") != len(headers) + 1 or text.count("\r") != len(headers) + 1:
        clean: dict[str, str] = {
            name: " ".join(value.splitlines()) for name, value in headers.items()
        }
        text = _HEAD + "".join([f"{name}: {value}\r\n" for name, value in clean.items()])
    return f"{text}\r\n".encode()


def parse_head(head: bytes) -> dict[str, str]:
    """Headers of a message; a line without a colon is left out."""
    first, *lines = head.decode("utf-8", "replace").split(_LINE)
    found: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    status: Any = first[len("NATS/1.0") :].split(maxsplit=1)
    if status:
        found["Status"] = status[0]
        found["Description"] = status[1] if len(status) == 2 else ""
    return found
