"""A run as it happens: its events and the log that matters now, in one sequence.

Everything is pushed: one thread reads the event stream, one thread each log that has begun. As in
the v1 SDK the log with the highest number is the one to show; it changes for good when the next
one has its first line.
"""

import queue
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from stellwerk.answers import LogList
from stellwerk.api import RunEventView, RunView
from stellwerk.client import Client, segment
from stellwerk.errors import NotFoundError
from stellwerk.log_names import BUILD_LOG, STD_LOG, begins_anew, put_aside
from stellwerk.runstate import TERMINAL
from stellwerk.streams import follow, log_address, run_events

SILENCE_AFTER_END_S = 15.0

_SHOWN = re.compile(r"^(user_logs/std_log\.txt|azureml-logs/\d{2}.+\.txt)$")
_BEFORE_START = frozenset({"NotStarted", "Preparing", "Queued", "Provisioning"})


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Some bytes of a log; ``attempt`` is 0 for logs that do not belong to one."""

    path: str
    attempt: int
    data: bytes

    @property
    def key(self) -> tuple[int, str]:
        """Orders logs: later ones are greater."""
        return (self.attempt, self.path)


@dataclass(frozen=True, slots=True)
class _Ended:
    """A thread is done; ``error`` says why where it failed."""

    log: tuple[int, str] | None
    error: Exception | None = None


def watch(client: Client, run_id: str) -> Iterator[RunEventView | LogChunk]:
    """All events of a run and the bytes of its current log, until it has ended and all is said."""
    watcher = _Watcher(client, run_id)
    try:
        yield from watcher.items()
    finally:
        watcher.stop()


def logs_to_show(paths: Iterable[str]) -> list[str]:
    """Those of a run's logs that are shown to people, in the order they come."""
    return sorted(path for path in paths if _SHOWN.match(path))


class _Watcher:
    def __init__(self, client: Client, run_id: str) -> None:
        self._client, self._run_id = client, run_id
        self._queue: queue.SimpleQueue[RunEventView | LogChunk | _Ended] = queue.SimpleQueue()
        self._stopped = threading.Event()
        self._following: set[tuple[int, str]] = set()
        self._seen: set[tuple[int, str]] = set()
        self._attempt = 0
        self._events_over = False

    def stop(self) -> None:
        self._stopped.set()

    def items(self) -> Iterator[RunEventView | LogChunk]:
        self._start(self._read_events)
        # Events of earlier attempts come as well, but their log has another name by now.
        self._attempt = self._client.get(f"/runs/{segment(self._run_id)}", RunView).attempt
        shown: tuple[int, str] = (0, "")
        while not self._events_over or self._following:
            try:
                item = self._queue.get(timeout=SILENCE_AFTER_END_S if self._events_over else None)
            except queue.Empty:
                return
            if isinstance(item, _Ended):
                self._ended(item)
            elif isinstance(item, RunEventView):
                self._follow_logs_of(item)
                yield item
            elif item.key >= shown:
                shown = item.key
                yield item

    def _ended(self, item: _Ended) -> None:
        if item.error is not None and not (item.log and isinstance(item.error, NotFoundError)):
            raise item.error
        if item.log is None:
            self._events_over = True
        else:
            self._following.discard(item.log)
            if item.error is not None:
                self._seen.discard(item.log)  # not there yet: the next event tries again

    def _follow_logs_of(self, event: RunEventView) -> None:
        self._attempt = max(self._attempt, event.attempt)
        if event.status in TERMINAL:
            answer = self._client.get(f"/runs/{segment(self._run_id)}/logs", LogList)
            for path in logs_to_show(log.path for log in answer.logs):
                self._follow(self._attempt if path.startswith("user_logs/") else 0, path)
        elif event.type == "ImageBuildStarted":
            self._follow(0, BUILD_LOG)
        elif event.attempt >= max(1, self._attempt) and event.status not in _BEFORE_START:
            self._follow(event.attempt, STD_LOG)

    def _follow(self, attempt: int, path: str) -> None:
        key = (attempt, path)
        if key not in self._seen:
            self._seen.add(key)
            self._following.add(key)
            self._start(lambda: self._read_log(attempt, path))

    @staticmethod
    def _start(work: Callable[[], None]) -> None:
        threading.Thread(target=work, name="stellwerk-watch", daemon=True).start()

    def _read_events(self) -> None:
        error = None
        try:
            for event in run_events(self._client, self._run_id, stopped=self._stopped.is_set):
                self._queue.put(event)
        except Exception as caught:  # noqa: BLE001 - raised again where the items are read
            error = caught
        self._queue.put(_Ended(None, error))

    def _read_log(self, attempt: int, path: str) -> None:
        def stopped() -> bool:
            return self._stopped.is_set() or 0 < attempt < self._attempt

        def finished(offset: int) -> bool:
            return _finished(self._client, self._run_id, path, attempt, offset)

        error = None
        address = log_address(self._run_id, path)
        try:
            for data in follow(self._client, address, finished, attempt=attempt, stopped=stopped):
                self._queue.put(LogChunk(path, attempt, data))
        except Exception as caught:  # noqa: BLE001 - raised again where the items are read
            error = caught
        self._queue.put(_Ended((attempt, path), error))


def follow_log(client: Client, run_id: str, path: str) -> Iterator[bytes]:
    """A log of a run, live, until the run is over.

    Where the run is tried again, what the later attempt writes comes behind the earlier one's.
    """
    address = log_address(run_id, path)
    if not begins_anew(path):
        yield from follow(client, address, lambda read: _finished(client, run_id, path, 0, read))
        return
    attempt, newest = 0, 1
    while attempt < newest:
        first = not attempt
        attempt = max(newest, client.get(f"/runs/{segment(run_id)}", RunView).attempt)
        finished = partial(_finished, client, run_id, path, attempt)
        try:
            yield from follow(client, address, finished, attempt=attempt)
        except NotFoundError:
            if first:
                raise
        newest = client.get(f"/runs/{segment(run_id)}", RunView).attempt


def _finished(client: Client, run_id: str, path: str, attempt: int, offset: int) -> bool:
    """Whether ``offset`` bytes are all that a log, of that attempt or of none, will ever have."""
    run = client.get(f"/runs/{segment(run_id)}", RunView)
    over = run.status in TERMINAL or 0 < attempt < run.attempt
    name = put_aside(path, attempt) if 0 < attempt < run.attempt else path
    answer = client.get(f"/runs/{segment(run_id)}/logs", LogList)
    log = next((each for each in answer.logs if each.path == name), None)
    if log is None:
        return over
    return offset >= log.bytes and (log.closed or over)
