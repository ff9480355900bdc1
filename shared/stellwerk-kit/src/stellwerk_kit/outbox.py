"""The relay: publishes what was committed, in order per aggregate, until the broker has it.

A crash between commit and acknowledgement publishes the same ids again; the broker's duplicate
window and every reader's inbox drop them.
"""

import asyncio
import random
import zlib
from collections import deque
from dataclasses import dataclass, field

import structlog
from sqlalchemy.exc import OperationalError

from stellwerk_kit import telemetry
from stellwerk_kit.bus import Bus
from stellwerk_kit.db import Database, OutboxRow
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.tasks import TaskOwner

LANES = 64
FORGET_BATCH = 256
FORGET_AFTER_S = 0.5
AGAIN_S, AGAIN_MAX_S = 0.05, 2.0

log = structlog.get_logger()


@dataclass(slots=True)
class _Lane:
    """Rows in order; the first is under way. ``delay_s`` grows while it is refused."""

    rows: deque[OutboxRow] = field(default_factory=deque)
    delay_s: float = AGAIN_S


class Relay:
    """Feeds lanes; events of one aggregate always go through the same lane."""

    def __init__(self, db: Database, bus: Bus, tasks: TaskOwner, name: str) -> None:
        self._db, self._bus, self._tasks, self._name = db, bus, tasks, name
        self._lanes = [_Lane() for _ in range(LANES)]
        self._done: list[int] = []
        self._pending = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._something_done = asyncio.Event()

    async def start(self) -> None:
        """Publish what an earlier process left, then what this one commits."""
        after = 0
        while rows := await self._db.outbox_rows(after, 500):
            self.offer(rows)
            after = rows[-1].id
        self._db.on_emitted = self.offer
        telemetry.OUTBOX_PENDING.set_function(lambda: self._pending)
        self._tasks.spawn(self._forget(), "outbox-forget")

    def offer(self, rows: list[OutboxRow]) -> None:
        """Queue committed rows; called on the event loop in commit order."""
        self._pending += len(rows)
        self._idle.clear()
        for row in rows:
            lane = self._lanes[zlib.crc32(row.lane.encode()) % LANES]
            lane.rows.append(row)
            if len(lane.rows) == 1:
                self._publish(lane)

    async def drain(self, timeout_s: float) -> None:
        """Wait until all is published, at most ``timeout_s`` seconds; the rest stays stored."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._idle.wait()
        except TimeoutError:
            log.warning("events stay in the outbox", action="outbox_left", pending=self._pending)
        if self._done:
            await self._db.outbox_done(self._done)
            self._done = []

    def _publish(self, lane: _Lane) -> None:
        row = lane.rows[0]
        failpoint(f"{self._name}.before_publish")
        headers = {**row.headers, "Nats-Expected-Stream": "SW_EVENTS"}
        self._bus.store(row.subject, row.body, headers, lambda error: self._told(lane, error))

    def _told(self, lane: _Lane, error: Exception | None) -> None:
        """The broker has the first row, or it is published again."""
        if error is not None:
            subject = lane.rows[0].subject
            log.warning("publish again", action="publish_retry", subject=subject, error=str(error))
            pause = lane.delay_s * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
            lane.delay_s = min(AGAIN_MAX_S, lane.delay_s * 2)
            asyncio.get_running_loop().call_later(pause, self._publish, lane)
            return
        row, lane.delay_s = lane.rows.popleft(), AGAIN_S
        failpoint(f"{self._name}.after_publish")
        telemetry.PUBLISHED.labels(row.type).inc()
        self._done.append(row.id)
        self._something_done.set()
        self._pending -= 1
        if not self._pending:
            self._idle.set()
        if lane.rows:
            self._publish(lane)

    async def _forget(self) -> None:
        while True:
            await self._something_done.wait()
            if len(self._done) < FORGET_BATCH:
                await asyncio.sleep(FORGET_AFTER_S)
            self._something_done.clear()
            ids, self._done = self._done, []
            for start in range(0, len(ids), FORGET_BATCH):
                try:
                    await self._db.outbox_done(ids[start : start + FORGET_BATCH])
                except OperationalError as error:  # a store that is away: they are forgotten later
                    log.warning("outbox not cleared", action="outbox_kept", error=str(error))
                    self._done = ids[start:] + self._done
                    self._something_done.set()
                    await asyncio.sleep(FORGET_AFTER_S)
                    break
