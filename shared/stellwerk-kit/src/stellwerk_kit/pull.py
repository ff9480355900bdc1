"""A standing pull on a durable consumer: one request covers many messages.

The broker sends each message as soon as there is one, up to the number asked for; the next
request follows when all of them came. One request is open at a time, and never for more than the
caller can take up at once, so nothing waits in the client while its time to be acknowledged runs.
A consumer that may linger asks now and then instead while much comes: what has gathered at the
broker travels at once, and wakes both sides once. Nobody pays for that by waiting: while somebody
waits for what comes, nothing lingers.
"""

import asyncio
import json
from collections import deque
from contextlib import suppress

from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from stellwerk_kit.bus import Bus
from stellwerk_kit.wire import Message

EXPIRES_S = 15.0
WATCHDOG_EXTRA_S = 5.0
WORTH_A_WAIT = 4
"""So many messages must be expected meanwhile for a consumer to wait a little and take several."""
_ENDED = ("404", "408")
_IDLE = "100"


class Pull:
    """Messages of ``consumer`` on ``stream``, in the order they come."""

    def __init__(self, bus: Bus, stream: str, consumer: str) -> None:
        self._bus = bus
        self._subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self._subscription: Subscription | None = None
        self._changed = asyncio.Event()
        self._due = 0
        self._stopped = False
        self._failure = ""
        self._second, self._count, self._rate = 0.0, 0, 0
        self.waiting: deque[Message] = deque()
        """Arrived and not taken yet."""

    async def some(
        self, most: int, linger_s: float = 0.0, haste: asyncio.Event | None = None
    ) -> list[Message]:
        """At least one message and at most ``most``; none once stopped.

        While messages keep coming so fast that some are sure to come in ``linger_s`` seconds,
        they are taken along, unless ``haste`` is set: that ends such a wait at once.
        Raises NatsError when the broker refuses or does not answer.
        """
        hurried = haste or asyncio.Event()
        lingers = self._rate * linger_s >= WORTH_A_WAIT
        if lingers and self._due <= 0 and not self.waiting and not self._stopped:
            await _pass_time(linger_s, hurried)
            if not hurried.is_set():
                await self._gathered(most)
        await self._arrival(most)
        if lingers and self._due > 0 and len(self.waiting) < most:
            await _pass_time(linger_s, hurried)
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def stop(self) -> None:
        """Let :meth:`some` return."""
        self._stopped = True
        self._changed.set()

    def again(self) -> None:
        """The broker has forgotten what it was asked for: ask again."""
        self._due = 0
        self._changed.set()

    async def close(self) -> None:
        """Give back what was not taken and take no more."""
        subscription, self._subscription = self._subscription, None
        if subscription is None:
            return
        try:
            await subscription.unsubscribe()
            while self.waiting:
                self.waiting.popleft().nak()
        except (NatsError, OSError, ValueError):
            self.waiting.clear()  # it all comes again when its time to be acknowledged is over

    async def _gathered(self, most: int) -> None:
        """What the broker has now; nothing is asked for when it has nothing."""
        await self._request(most, {"batch": most, "no_wait": True})
        while self._due > 0 and not self._stopped:
            await self._change()
        if not self.waiting:
            self._rate = 0

    async def _arrival(self, most: int) -> None:
        while not self.waiting and not self._stopped:
            if self._due <= 0:
                await self._request(most, {"batch": most, "expires": int(EXPIRES_S * 1e9)})
            await self._change()

    async def _change(self) -> None:
        self._changed.clear()
        limit_s = EXPIRES_S + WATCHDOG_EXTRA_S
        watchdog = asyncio.get_running_loop().call_later(limit_s, self._forgotten)
        try:
            await self._changed.wait()
        finally:
            watchdog.cancel()
        if self._failure:
            raise NatsError(self._failure)

    def _forgotten(self) -> None:
        self._failure = "the broker forgot a pull"
        self._changed.set()

    async def _request(self, most: int, asked: dict[str, object]) -> None:
        if self._subscription is None:
            inbox = self._bus.client.new_inbox()
            self._subscription = await self._bus.client.listen(inbox, self._arrived)
        self._due = most
        body = json.dumps(asked).encode()
        self._bus.client.send(self._subject, body, reply=self._subscription.subject)

    def _arrived(self, message: Message) -> None:
        if message.reply:
            self._due -= 1
            self._counted()
            self.waiting.append(message)
        else:
            status = message.headers.get("Status", "")
            if status == _IDLE:
                return
            self._due = 0
            if status not in _ENDED:
                self._failure = f"{status} {message.headers.get('Description', '')}".strip()
        self._changed.set()

    def _counted(self) -> None:
        now = asyncio.get_running_loop().time()
        if now - self._second > 1.0:
            self._rate = self._count if now - self._second < 2.0 else 0
            self._second, self._count = now, 0
        self._count += 1


async def _pass_time(seconds: float, hurried: asyncio.Event) -> None:
    if not hurried.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await hurried.wait()
