"""Records on their way to the platform: gathered, sent in batches by a thread, numbered.

A call that logs returns at once. A batch is sent when it is large enough or half a second old,
in order, and repeated until the platform has it; :meth:`RecordWriter.flush` waits for all. What
the process had not sent when it was killed is lost, at most half a second of records.
"""

import atexit
import sys
import threading
import time
import weakref
from collections.abc import Sequence

from stellwerk.client import Client
from stellwerk.errors import ServiceUnavailableError, UserError
from stellwerk.ids import new_id
from stellwerk.run_records import RecordsView

BATCH_RECORDS = 2000
BATCH_BYTES = 256 * 1024
WAITING_LIMIT = 50_000
DELAY_S = 0.5
EXIT_S = 300.0


class RecordWriter:
    """One writer of one run. Threads may share it."""

    def __init__(self, client: Client, path: str) -> None:
        self._client, self._path = client, f"{path}/records"
        self._id, self._next = new_id(), 0
        self._waiting: list[bytes] = []
        self._changed = threading.Condition()
        self._sending = threading.Lock()
        self._thread: threading.Thread | None = None
        self._failure: Exception | None = None

    def add(self, line: bytes) -> None:
        """Take one record, a JSON object. Raises what an earlier batch was refused for."""
        with self._changed:
            self._raise_failure()
            self._waiting.append(line)
            count = len(self._waiting)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="run-records", daemon=True)
                self._thread.start()
                _writers.add(self)
            elif count == 1 or count >= BATCH_RECORDS:
                self._changed.notify()
        if count > WAITING_LIMIT:
            self.flush()

    def flush(self, timeout_s: float = EXIT_S) -> None:
        """Wait until the platform has every record. Raises what a batch was refused for."""
        deadline = time.monotonic() + timeout_s
        while self._send_some():
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"Not all records were stored within {timeout_s:g} s.", code="records.waiting"
                )
        with self._changed:
            self._raise_failure()

    def send(self, lines: Sequence[bytes]) -> None:
        """Send records now, after all others. Raises UserError where they are refused."""
        self.flush()
        with self._sending:
            self._post(lines)

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                self._changed.wait_for(lambda: len(self._waiting) >= BATCH_RECORDS, DELAY_S)
            try:
                self._send_some()
            except ServiceUnavailableError:
                time.sleep(DELAY_S)  # kept; flush() tells, if it is still so then
            except Exception as error:  # noqa: BLE001 - told at the next call
                with self._changed:
                    self._failure = error

    def _send_some(self) -> bool:
        """Send one batch; whether there was one."""
        with self._sending:
            with self._changed:
                batch = _first(self._waiting)
            if not batch:
                return False
            try:
                self._post(batch)
            except UserError:  # refused for good: a repetition would be, too
                self._forget(len(batch))
                raise
            self._forget(len(batch))
            return True

    def _post(self, lines: Sequence[bytes]) -> None:
        head = f'{{"writer":"{self._id}","first":{self._next},"records":['.encode()
        content = b"".join((head, b",".join(line.strip() for line in lines), b"]}"))
        reply = self._client.call("POST", self._path, RecordsView, content=content)
        self._next = reply.next

    def _forget(self, count: int) -> None:
        with self._changed:
            del self._waiting[:count]

    def _raise_failure(self) -> None:
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure


def _first(lines: Sequence[bytes]) -> list[bytes]:
    size, batch = 0, list[bytes]()
    for line in lines:
        size += len(line)
        if batch and (size > BATCH_BYTES or len(batch) == BATCH_RECORDS):
            break
        batch.append(line)
    return batch


_writers: weakref.WeakSet[RecordWriter] = weakref.WeakSet()


@atexit.register
def _flush_all() -> None:
    for writer in tuple(_writers):
        try:
            writer.flush()
        except Exception as error:  # noqa: BLE001 - the process ends whatever happens
            sys.stderr.write(f"stellwerk: logged records could not be stored: {error}\n")
