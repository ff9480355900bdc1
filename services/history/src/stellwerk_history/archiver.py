"""Post-processing: the files of an ended attempt are checked, the log is closed and stored.

A row in ``archives`` is owed an answer; it goes in the transaction that emits the answer, so a
kill at any point only makes the work begin again, and all of it is addressed by content. What is
missing is waited for, without polling, for a budget that only runs while the object store
answers; then the archive has failed for good.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog
from prometheus_client import Counter, Histogram

from stellwerk.errors import NotFoundError, ProtocolError, ServiceUnavailableError
from stellwerk.events import ArchiveFailed, LogClosure, RunArchived
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_history import closing
from stellwerk_history.archive_store import ArchiveStore, Pending
from stellwerk_history.closing import BUILD, STD, Log, LogKey
from stellwerk_history.log_store import LogStore
from stellwerk_history.metric_store import MetricStore
from stellwerk_history.wakeups import Wakeups, log_key, metric_key
from stellwerk_kit.clock import Clock
from stellwerk_kit.failpoints import failpoint
from stellwerk_kit.objects import ObjectStore

SMALL_LOG = 4 * 1024 * 1024
SIZES_AT_ONCE = 1000
MAX_CLOSURE_CHARS = 100_000
NAMED = 5

ARCHIVED = Counter("stellwerk_history_archives", "Runs archived", ["outcome"])
SECONDS = Histogram("stellwerk_history_archive_seconds", "From RunFinalizing to the answer")

T = TypeVar("T")
log = structlog.get_logger()


class TroubleError(Exception):
    """No waiting can help any more. ``code`` is stable, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: how long things may be missing, and the pause before the store is asked again."""

    budget_s: float
    retry_s: float
    parallel: int


class Archiver:
    """Archives one run after another, several at a time."""

    def __init__(
        self,
        store: ArchiveStore,
        logs: LogStore,
        metrics: MetricStore,
        objects: ObjectStore,
        wakeups: Wakeups,
        clock: Clock,
        limits: Limits,
    ) -> None:
        self._store, self._logs, self._metrics = store, logs, metrics
        self._objects, self._wakeups = objects, wakeups
        self._clock, self._limits = clock, limits
        self._uploads = asyncio.Semaphore(limits.parallel)

    async def archive(self, pending: Pending) -> None:
        """Bring one archive to its answer."""
        started = self._clock.monotonic()
        while True:
            try:
                await self._archive(pending, self._clock.monotonic() + self._limits.budget_s)
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
                return

    async def _archive(self, pending: Pending, deadline: float) -> None:
        try:
            outputs = await self._outputs(pending, deadline)
            await self._records(pending, deadline)
            logs = await self._complete_logs(pending, deadline)
        except TroubleError as trouble:
            ARCHIVED.labels(trouble.code).inc()
            log.error(
                "archive failed",
                action="archive_failed",
                run_id=pending.run_id,
                attempt=pending.attempt,
                code=trouble.code,
                why=str(trouble),
            )
            failed = ArchiveFailed(
                run_id=pending.run_id,
                attempt=pending.attempt,
                code=trouble.code,
                message=str(trouble),
            )
            await self._store.answer(pending, failed, [])
            return
        await self._close(pending, outputs, logs)

    async def _close(self, pending: Pending, outputs: list[ManifestEntry], logs: list[Log]) -> None:
        sealed = [replace(each, closed=True, stored=True) for each in logs]
        newest = max([pending.attempt, *(each.key.attempt for each in _of_attempts(logs))])
        entries = [
            ManifestEntry(path=closing.shown_path(each, newest), size=each.bytes, sha256=_sha(each))
            for each in sealed
        ]
        manifest = closing.archive(outputs, entries)
        async with self._uploads:
            # Nobody hears of the manifest before all of this is stored, so it may go along.
            await asyncio.gather(
                *(self._put(each) for each in logs if not each.stored),
                self._objects.put_manifest(manifest),
            )
        failpoint("history.before_archived")
        archived = RunArchived(
            run_id=pending.run_id,
            attempt=pending.attempt,
            manifest=manifest.digest(),
            files=len(manifest.entries),
            bytes=manifest.size,
            logs=_closures(sealed, pending.attempt),
        )
        await self._store.answer(pending, archived, sealed)
        failpoint("history.after_archived")
        ARCHIVED.labels("archived").inc()
        await self._logs.release(each.key for each in sealed)
        self._wakeups.notify([log_key(pending.run_id)])

    async def _put(self, entry: Log) -> None:
        """Store a log as a blob; its digest was checked on the way."""
        if entry.bytes <= SMALL_LOG:
            await self._objects.put_bytes(await self._logs.read(entry, 0, entry.bytes))
        else:
            path = self._logs.path(entry.key)
            await self._objects.put_file(path, known=(_sha(entry), entry.bytes))

    async def _complete_logs(self, pending: Pending, deadline: float) -> list[Log]:
        """All logs of the run with their digests, those of the attempt as its executor said."""
        wanted = {each.stream: each for each in pending.exit.logs} if pending.exit else {}

        async def look() -> list[Log] | None:
            found = await self._logs.of(pending.run_id)
            return None if _missing(wanted.values(), found, pending.attempt) else found

        found = await self._wakeups.until([log_key(pending.run_id)], self._left(deadline), look)
        if found is None:
            have = await self._logs.of(pending.run_id)
            missing = _missing(wanted.values(), have, pending.attempt)
            raise TroubleError(
                "log.incomplete",
                "The log did not arrive completely: " + ", ".join(missing[:NAMED]) + ".",
            )
        present = {each.key: each for each in found if each.key.stream != BUILD}
        for stream, closure in wanted.items():
            key = LogKey(pending.run_id, pending.attempt, stream)
            path = closing.checked_path(stream, closure.path)
            present.setdefault(key, Log(key, path, local=False))
        checked = [await self._checked(each, wanted, pending) for each in present.values()]
        return checked + await self._build_log(pending)

    async def _checked(self, entry: Log, wanted: dict[str, LogClosure], pending: Pending) -> Log:
        """The log with its digest, which must be its executor's for standard output."""
        digest = entry.sha256 or await self._digest(entry, entry.bytes)
        closure = wanted.get(entry.key.stream) if entry.key.attempt == pending.attempt else None
        if closure is not None and digest != closure.sha256:
            prefix = await self._digest(entry, min(closure.bytes, entry.bytes))
            if prefix != closure.sha256 and entry.key.stream == STD:
                raise TroubleError(
                    "log.mismatch",
                    f"{entry.path} has {entry.bytes} bytes that are not the ones the run wrote.",
                )
            if prefix != closure.sha256:
                # A file under ./logs may be written anew while it is followed: what was seen stays.
                log.warning(
                    "log was rewritten",
                    action="log_rewritten",
                    run_id=pending.run_id,
                    log=entry.path,
                )
        return replace(entry, sha256=digest)

    async def _digest(self, entry: Log, size: int) -> str:
        return await self._logs.digest(entry, size) if size else closing.EMPTY_SHA256

    async def _build_log(self, pending: Pending) -> list[Log]:
        """The log of the environment's build where the run waited for one and it is complete."""
        key = await self._store.build_log(pending.run_id)
        entry = await self._logs.get(key) if key is not None else None
        return [entry] if entry is not None and entry.closed else []

    async def _records(self, pending: Pending, deadline: float) -> None:
        wanted = pending.exit.metric_records if pending.exit else 0
        if not wanted:
            return

        async def look() -> int | None:
            have = await self._metrics.records(pending.run_id, pending.attempt)
            return have if have >= wanted else None

        keys = [metric_key(pending.run_id)]
        if await self._wakeups.until(keys, self._left(deadline), look) is None:
            have = await self._metrics.records(pending.run_id, pending.attempt)
            raise TroubleError("metrics.incomplete", f"{have} of {wanted} logged records arrived.")

    async def _outputs(self, pending: Pending, deadline: float) -> list[ManifestEntry]:
        """The attempt's outputs, every one of them present with its size."""
        digest = pending.exit.outputs_manifest if pending.exit else None
        if digest is None:
            return await self._given(pending)
        if digest == Manifest().digest():
            return []

        async def check() -> list[ManifestEntry]:
            try:
                manifest = await self._objects.get_manifest(digest)
            except NotFoundError as error:
                raise TroubleError(
                    "outputs.missing", "The list of outputs is not in the object store."
                ) from error
            except ProtocolError as error:
                raise TroubleError("outputs.malformed", f"The list of outputs: {error}.") from error
            wrong = await self._wrong(manifest.entries)
            if wrong:
                raise TroubleError(
                    "outputs.incomplete",
                    f"{len(wrong)} outputs are not in the object store as they were listed: "
                    + ", ".join(entry.path for entry in wrong[:NAMED])
                    + ".",
                )
            return list(manifest.entries)

        return await self._until(check, deadline)

    async def _given(self, pending: Pending) -> list[ManifestEntry]:
        """Files an attempt gave before it was lost, those that are there."""
        files = await self._metrics.live_files(pending.run_id, pending.attempt)
        entries = [
            ManifestEntry(path=path, size=size, sha256=sha) for path, (size, sha) in files.items()
        ]
        wrong = {entry.path for entry in await self._wrong(entries)}
        return [entry for entry in entries if entry.path not in wrong]

    async def _wrong(self, entries: Iterable[ManifestEntry]) -> list[ManifestEntry]:
        listed = list(entries)
        wrong: list[ManifestEntry] = []
        for start in range(0, len(listed), SIZES_AT_ONCE):
            some = listed[start : start + SIZES_AT_ONCE]
            async with self._uploads:
                sizes = await self._objects.sizes(entry.sha256 for entry in some)
            wrong += [entry for entry in some if sizes[entry.sha256] != entry.size]
        return wrong

    async def _until(self, check: Callable[[], Awaitable[T]], deadline: float) -> T:
        """The result of ``check``, tried again while it finds trouble and there is time."""
        while True:
            try:
                return await check()
            except TroubleError:
                if self._left(deadline) <= self._limits.retry_s:
                    raise
            await asyncio.sleep(self._limits.retry_s)

    def _left(self, deadline: float) -> float:
        return max(0.001, deadline - self._clock.monotonic())


def _missing(wanted: Iterable[LogClosure], found: list[Log], attempt: int) -> list[str]:
    """Logs that are shorter than their executor says, for people."""
    have = {each.key.stream: each.bytes for each in found if each.key.attempt == attempt}
    return [
        f"{each.path} ({have.get(each.stream, 0)} of {each.bytes} bytes)"
        for each in wanted
        if have.get(each.stream, 0) < each.bytes
    ]


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
