"""Post-processing: an ended attempt is verified, its log closed and stored, its archive listed.

A row in ``archives`` is owed an answer; it goes when the answer is emitted or projected, so a
kill at any point only makes the work begin again, and all of it is addressed by content. What an
earlier process has said is projected before anything is begun (``InOrder.past``). Where the
projection left the answer out, it is given once more, then in a transaction (``reconcile``). The
budget for what is missing runs only while the object store answers.
"""

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import structlog
from prometheus_client import Counter, Histogram

from stellwerk.errors import ProtocolError, ServiceUnavailableError
from stellwerk.events import ArchiveFailed, LogClosure, RunArchived
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_history import closing
from stellwerk_history.archive_store import ArchiveStore, Pending
from stellwerk_history.closing import BUILD, STD, Log, LogKey
from stellwerk_history.log_store import LogStore
from stellwerk_history.verifying import Limits, TroubleError, Verifier
from stellwerk_history.wakeups import Wakeups, log_key
from stellwerk_kit.clock import Clock
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.voice import Voice

SMALL_LOG = 4 * 1024 * 1024
MAX_CLOSURE_CHARS = 100_000

ARCHIVED = Counter("stellwerk_history_archives", "Runs archived", ["outcome"])
SECONDS = Histogram("stellwerk_history_archive_seconds", "From RunFinalizing to the answer")

log = structlog.get_logger()


class Archiver:
    """Archives one run after another, several at a time."""

    def __init__(
        self,
        verifier: Verifier,
        store: ArchiveStore,
        logs: LogStore,
        objects: ObjectStore,
        wakeups: Wakeups,
        clock: Clock,
        limits: Limits,
        voice: Voice,
    ) -> None:
        self._verifier, self._store, self._logs = verifier, store, logs
        self._objects, self._wakeups, self._voice = objects, wakeups, voice
        self._clock, self._limits = clock, limits

    async def archive(self, pending: Pending, *, aloud: bool) -> int | None:
        """Bring one archive to its answer.

        Returns the answer's place in the stream where only its projection settles what is owed,
        None where that is settled. Without ``aloud`` it always is.
        """
        started = self._clock.monotonic()
        while True:
            try:
                deadline = self._clock.monotonic() + self._limits.budget_s
                said = await self._archive(pending, deadline, aloud=aloud)
            except ServiceUnavailableError as error:
                log.warning(
                    "archive waits for the object store",
                    action="archive_waits",
                    run_id=pending.run_id,
                    error=str(error),
                )
                await asyncio.sleep(self._limits.retry_s)
            else:
                SECONDS.observe(self._clock.monotonic() - started)
                return said

    async def _archive(self, pending: Pending, deadline: float, *, aloud: bool) -> int | None:
        try:
            outputs = await self._verifier.outputs(pending, deadline)
            await self._verifier.records(pending, deadline)
            logs = await self._verifier.logs(pending, deadline)
            manifest = await self._put_all(pending, outputs, logs)
        except TroubleError as trouble:
            await self._fail(pending, trouble)
            return None
        failpoint("history.before_archived")
        sealed = [replace(each, closed=True, stored=True) for each in logs]
        fresh = [each for each in sealed if each not in logs]
        archived = RunArchived(
            run_id=pending.run_id,
            attempt=pending.attempt,
            manifest=manifest.digest(),
            files=len(manifest.entries),
            bytes=manifest.size,
            logs=_closures(sealed, pending.attempt),
        )
        said = await self._say(pending, archived, fresh) if aloud else None
        if said is None:
            await self._store.answer(pending, archived, fresh)
            self._wakeups.notify([log_key(pending.run_id)])
        failpoint("history.after_archived")
        ARCHIVED.labels("archived").inc()
        if here := [each.key for each in sealed if each.local]:
            await self._logs.release(here)
        return said

    async def _say(self, pending: Pending, archived: RunArchived, fresh: list[Log]) -> int | None:
        """State that the run is archived; the fact's place in the stream, None if it was not said.

        Where the fact tells all there is to seal, its own projection does that, and takes the row
        that says it is owed; until then a kill makes us say it again. The rest needs a transaction.
        """
        told = {LogKey(archived.run_id, archived.attempt, each.stream) for each in archived.logs}
        if any(each.key not in told for each in fresh):
            return None
        published = await self._voice.say(archived, causation_id=pending.event_id)
        return published.sequence if published else None

    async def _fail(self, pending: Pending, trouble: TroubleError) -> None:
        ARCHIVED.labels(trouble.code).inc()
        where = {"run_id": pending.run_id, "attempt": pending.attempt, "code": trouble.code}
        log.error("archive failed", action="archive_failed", why=str(trouble), **where)
        failed = ArchiveFailed(
            run_id=pending.run_id,
            attempt=pending.attempt,
            code=trouble.code,
            message=str(trouble),
        )
        await self._store.answer(pending, failed, [])

    async def _put_all(
        self, pending: Pending, outputs: list[ManifestEntry], logs: list[Log]
    ) -> Manifest:
        """Store the logs and the list of everything; returns that list."""
        newest = max([pending.attempt, *(each.key.attempt for each in _of_attempts(logs))])
        try:
            manifest = closing.archive(outputs, [_entry(each, newest) for each in logs])
        except ValueError as error:
            raise TroubleError(
                "archive.unlistable", f"The run's {len(outputs)} files cannot be listed: {error}"
            ) from error
        async with self._verifier.turns:
            # Nobody hears of the list before all of this is stored, so it may go along.
            await asyncio.gather(
                *(self._put(each) for each in logs if not each.stored),
                self._objects.put_manifest(manifest),
            )
        return manifest

    async def _put(self, entry: Log) -> None:
        """Store a log as a blob under the digest that was checked."""
        try:
            if entry.bytes <= SMALL_LOG:
                data = await self._logs.read(entry, 0, entry.bytes)
                stored = await self._objects.put_bytes(data)
            else:
                known = (_sha(entry), entry.bytes)
                stored, _ = await self._objects.put_file(self._logs.path(entry.key), known=known)
        except (ProtocolError, FileNotFoundError) as error:
            raise TroubleError("log.damaged", f"{entry.path} cannot be stored: {error}") from error
        if stored != _sha(entry):
            raise TroubleError("log.damaged", f"The file of {entry.path} has changed.")


def _entry(entry: Log, newest: int) -> ManifestEntry:
    path = closing.shown_path(entry, newest)
    return ManifestEntry(path=path, size=entry.bytes, sha256=_sha(entry))


def _closures(logs: list[Log], attempt: int) -> tuple[LogClosure, ...]:
    """The attempt's logs, standard output first, as many as fit an event."""
    chosen: list[LogClosure] = []
    room = MAX_CLOSURE_CHARS
    for each in sorted(_of_attempts(logs), key=lambda each: each.key.stream != STD):
        room -= len(each.path) + 200
        if each.key.attempt == attempt and room > 0:
            closure = LogClosure(
                stream=each.key.stream, path=each.path, bytes=each.bytes, sha256=_sha(each)
            )
            chosen.append(closure)
    return tuple(chosen)


def _of_attempts(logs: Iterable[Log]) -> list[Log]:
    return [each for each in logs if each.key.stream != BUILD]


def _sha(entry: Log) -> str:
    if entry.sha256 is None:
        raise ValueError(f"log {entry.path} has no digest yet")
    return entry.sha256
