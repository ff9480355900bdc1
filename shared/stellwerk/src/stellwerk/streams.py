"""Endless answers that survive a restart of the gateway: events by id, log bytes by offset.

Both iterators reconnect by themselves where the connection ends too early, from the last event or
byte they yielded, and give up only after ``PATIENCE_S`` without an answer.
"""

import time
from collections.abc import Callable, Iterator

import httpx2

from stellwerk.api import RunEventView, RunView
from stellwerk.client import Client, file_path, pause_before, segment
from stellwerk.errors import ServiceUnavailableError
from stellwerk.runstate import TERMINAL

PATIENCE_S = 120.0
"""How long a stream tries to reconnect, in seconds."""

Stopped = Callable[[], bool]


def _never() -> bool:
    return False


def run_events(
    client: Client, run_id: str, after: int = 0, *, stopped: Stopped = _never
) -> Iterator[RunEventView]:
    """Events of a run after sequence ``after``, live, until it has ended."""
    path = f"/runs/{segment(run_id)}/events"
    line = _Lifeline(client)
    while not stopped():
        try:
            headers = {"Last-Event-ID": str(after)} if after else {}
            with client.stream(path, accept="text/event-stream", headers=headers) as response:
                line.opened()
                for message in httpx2.EventSource(response):
                    if not message.data or message.event == "error":
                        continue
                    event = RunEventView.model_validate_json(message.data)
                    line.alive()
                    if event.sequence <= after:
                        continue
                    after = event.sequence
                    yield event
                    if event.status in TERMINAL:
                        return
        except (httpx2.TransportError, ServiceUnavailableError) as error:
            line.broken(error)
        else:
            view = client.get(f"/runs/{segment(run_id)}", RunView)
            if view.status in TERMINAL and view.sequence <= after:
                return
            line.ended()


def follow(
    client: Client,
    path: str,
    finished: Callable[[int], bool],
    *,
    attempt: int = 0,
    stopped: Stopped = _never,
) -> Iterator[bytes]:
    """Bytes of a growing text; ``finished(offset)`` says whether all were read.

    ``attempt`` is whose log it is where each attempt of a run writes its own, else 0.
    """
    line, offset = _Lifeline(client), 0
    whose = {"attempt": attempt} if attempt else {}
    while not stopped():
        try:
            with client.stream(path, {"offset": offset, "follow": "true", **whose}) as response:
                line.opened()
                for chunk in response.iter_bytes():
                    line.alive()
                    if stopped():
                        return
                    offset += len(chunk)
                    yield chunk
        except (httpx2.TransportError, ServiceUnavailableError) as error:
            line.broken(error)
        else:
            if finished(offset):
                return
            line.ended()


def log_address(run_id: str, path: str) -> str:
    """The API path of one log of a run."""
    return f"/runs/{segment(run_id)}/logs/{file_path(path)}"


class _Lifeline:
    """Pauses between reconnects, and the end of patience."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._broken_since: float | None = None
        self._failures = 0

    def alive(self) -> None:
        self._broken_since = None
        self._failures = 0

    def opened(self) -> None:
        self._broken_since = None

    def ended(self) -> None:
        """The answer ended in good order though more is to come: ask again soon."""
        time.sleep(pause_before(self._failures))
        self._failures += 1

    def broken(self, error: Exception) -> None:
        if isinstance(error, httpx2.ReadTimeout):
            self.alive()  # connected, only silent
            return
        now = time.monotonic()
        self._broken_since = now if self._broken_since is None else self._broken_since
        if now - self._broken_since > PATIENCE_S:
            raise self._client.unreachable(error) from error
        pause = pause_before(self._failures)
        if isinstance(error, ServiceUnavailableError):
            pause = max(pause, min(error.retry_after_s, 5.0))
        time.sleep(pause)
        self._failures += 1
