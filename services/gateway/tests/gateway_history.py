"""A history of one run for the tests of streams, with real long polls."""

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from stellwerk.answers import LogList
from stellwerk.api import LogView, RunEventView, RunView
from stellwerk.errors import NotFoundError, ServiceUnavailableError
from stellwerk.log_names import STD_LOG as LOG
from stellwerk.log_names import put_aside
from stellwerk_gateway.replies import EventsReply
from stellwerk_kit.rpc import RawReply

NOW = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Projection:
    """A history of one run, with real long polls."""

    status: str = "Running"
    attempt: int = 1
    events: list[RunEventView] = field(default_factory=list)
    logs: dict[str, bytearray] = field(default_factory=dict)
    closed: set[str] = field(default_factory=set)
    known: bool = True
    away: bool = False
    waiting: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def over(self) -> bool:
        return self.status in {"Completed", "Failed", "Canceled"}

    async def happen(self, status: str, attempt: int | None = None) -> None:
        async with self.changed:
            self.status, self.attempt = status, attempt or self.attempt
            number = len(self.events) + 1
            self.events.append(
                RunEventView(
                    sequence=number, type=f"Run{status}", time=NOW, status=status,
                    attempt=self.attempt, message="",
                )
            )  # fmt: skip
            self.changed.notify_all()

    async def try_again(self) -> None:
        """A new attempt: its log takes the old one's name."""
        async with self.changed:
            self.logs[put_aside(LOG, self.attempt)] = self.logs.pop(LOG)
            self.closed.discard(LOG)
        await self.happen("Starting", attempt=self.attempt + 1)

    async def write(self, data: bytes, path: str = LOG, *, close: bool = False) -> None:
        async with self.changed:
            self.logs.setdefault(path, bytearray()).extend(data)
            if close:
                self.closed.add(path)
            self.changed.notify_all()

    async def run_get(self, request: dict[str, Any]) -> RunView:
        self._check()
        return RunView(
            run_id=request["run_id"], experiment="e", status=self.status, target="local",
            submitted_at=NOW, sequence=len(self.events), attempt=self.attempt,
        )  # fmt: skip

    async def run_events(self, request: dict[str, Any]) -> EventsReply:
        self._check()
        await self._wait(
            request["wait_s"], lambda: len(self.events) > request["after"] or self.over()
        )
        chosen = self.events[request["after"] : request["after"] + request["limit"]]
        return EventsReply(events=tuple(chosen), terminal=self.over())

    async def log_read(self, request: dict[str, Any]) -> RawReply:
        self._check()
        offset, attempt = request["offset"], request.get("attempt") or self.attempt

        def ready() -> bool:
            path = self._now(request["path"], attempt)
            more = len(self.logs.get(path, b"")) > offset
            return more or path in self.closed or attempt < self.attempt

        await self._wait(request["wait_s"], ready)
        path = self._now(request["path"], attempt)
        if path not in self.logs:
            raise NotFoundError("no such log", code="log.not_found")
        body = bytes(self.logs[path][offset : offset + request["limit"]])
        at_end = offset + len(body) >= len(self.logs[path])
        closed = "1" if path in self.closed and at_end else "0"
        headers = {"Sw-Next-Offset": str(offset + len(body)), "Sw-Closed": closed}
        return RawReply(body, headers | {"Sw-Attempt": str(attempt)})

    def _now(self, path: str, attempt: int) -> str:
        """What a log of that attempt is called now."""
        return put_aside(path, attempt) if path == LOG and attempt < self.attempt else path

    async def run_logs(self, _: dict[str, Any]) -> LogList:
        self._check()
        return LogList(logs=tuple(LogView(path=p, bytes=len(d)) for p, d in self.logs.items()))

    def _check(self) -> None:
        if self.away:
            raise ServiceUnavailableError("rebuilding", code="projection.rebuilding")
        if not self.known:
            raise NotFoundError("no such run", code="run.not_found")

    async def _wait(self, wait_s: float, ready: Any) -> None:
        self.waiting += 1
        try:
            async with asyncio.timeout(wait_s), self.changed:
                await self.changed.wait_for(ready)
        except TimeoutError:
            pass
        finally:
            self.waiting -= 1
