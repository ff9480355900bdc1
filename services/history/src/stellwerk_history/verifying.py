"""What an ended attempt must have left: its log, its records, its outputs, all as it said.

What is missing is waited for until a deadline, woken by its arrival; then :class:`TroubleError`
says for good what is wrong.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, replace
from typing import TypeVar

import structlog

from stellwerk.errors import NotFoundError, ProtocolError
from stellwerk.events import LogClosure
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_history import closing
from stellwerk_history.archive_store import ArchiveStore, Pending
from stellwerk_history.closing import BUILD, STD, Log, LogKey
from stellwerk_history.log_store import LogStore
from stellwerk_history.metric_store import MetricStore
from stellwerk_history.wakeups import Wakeups, log_key, metric_key
from stellwerk_kit.clock import Clock
from stellwerk_kit.objects import ObjectStore

SIZES_AT_ONCE = 1000
NAMED = 5

T = TypeVar("T")
log = structlog.get_logger()


class TroubleError(Exception):
    """No waiting can help any more. ``code`` is stable, the text is for people."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds: how long things may be missing, and the pause before the store is asked again.

    ``parallel``: how many runs use the object store at a time.
    """

    budget_s: float
    retry_s: float
    parallel: int


class Verifier:
    """Checks one attempt after another. ``turns`` bounds the use of the object store."""

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
        self.turns = asyncio.Semaphore(limits.parallel)

    async def outputs(self, pending: Pending, deadline: float) -> list[ManifestEntry]:
        """The attempt's outputs, every one of them present with its size.

        Raises TroubleError ``outputs.missing``, ``outputs.malformed``, ``outputs.incomplete``.
        """
        listed = await self._listed(pending, deadline)
        # Clients may give files to a run as well.
        return [*listed, *await self._given(pending, {entry.path for entry in listed})]

    async def _listed(self, pending: Pending, deadline: float) -> list[ManifestEntry]:
        digest = pending.exit.outputs_manifest if pending.exit else None
        if digest in {None, Manifest().digest()}:
            return []

        async def check() -> list[ManifestEntry]:
            try:
                manifest = await self._objects.get_manifest(str(digest))
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

    async def records(self, pending: Pending, deadline: float) -> None:
        """All records of the attempt have arrived. Raises TroubleError ``metrics.incomplete``."""
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

    async def logs(self, pending: Pending, deadline: float) -> list[Log]:
        """All logs of the run with their digests, those of the attempt as its executor said.

        Raises TroubleError ``log.incomplete``, ``log.mismatch``, ``log.damaged``.
        """
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
        if not size:
            return closing.EMPTY_SHA256
        try:
            return await self._logs.digest(entry, size)
        except FileNotFoundError as error:
            raise TroubleError("log.damaged", f"The file of {entry.path} is gone.") from error

    async def _build_log(self, pending: Pending) -> list[Log]:
        """The log of the environment's build where the run waited for one and it is complete."""
        key = await self._store.build_log(pending.run_id)
        entry = await self._logs.get(key) if key is not None else None
        return [entry] if entry is not None and entry.closed else []

    async def _given(self, pending: Pending, known: set[str]) -> list[ManifestEntry]:
        """Other files that were given to an attempt while it ran, those that are there."""
        files = await self._metrics.live_files(pending.run_id, pending.attempt)
        entries = [
            ManifestEntry(path=path, size=size, sha256=sha)
            for path, (size, sha) in files.items()
            if path not in known
        ]
        wrong = {entry.path for entry in await self._wrong(entries)}
        return [entry for entry in entries if entry.path not in wrong]

    async def _wrong(self, entries: Iterable[ManifestEntry]) -> list[ManifestEntry]:
        listed = list(entries)
        wrong: list[ManifestEntry] = []
        for start in range(0, len(listed), SIZES_AT_ONCE):
            some = listed[start : start + SIZES_AT_ONCE]
            async with self.turns:
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
