"""Logs and files of a run as readers ask for them: by path, growing, wherever the bytes are."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, replace

from stellwerk.api import LogView, RunFileView
from stellwerk.errors import NotFoundError, ProtocolError
from stellwerk.log_names import BUILD_LOG
from stellwerk.manifest import Manifest
from stellwerk_history.closing import BUILD, Log, LogKey, shown_path
from stellwerk_history.domain import Run
from stellwerk_history.log_store import LogStore
from stellwerk_history.metric_store import MetricStore
from stellwerk_history.patching import not_found
from stellwerk_history.queries import Queries
from stellwerk_history.wakeups import Wakeups, log_key, run_key
from stellwerk_kit.objects import ObjectStore

MANIFESTS_KEPT = 64
KEPT_ENTRIES = 20_000


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a log; ``closed`` when nothing will ever follow ``next_offset``.

    ``attempt``: as what attempt's log it was found, 0 where that is nothing to know.
    """

    data: bytes
    next_offset: int
    closed: bool
    attempt: int = 0


@dataclass(frozen=True, slots=True)
class Where:
    """What to read: ``wait_s`` bounds the wait for the first byte."""

    offset: int
    limit: int
    wait_s: float


class Reader:
    """Answers questions for logs and files."""

    def __init__(
        self,
        queries: Queries,
        logs: LogStore,
        metrics: MetricStore,
        objects: ObjectStore,
        wakeups: Wakeups,
    ) -> None:
        self._queries, self._logs, self._metrics = queries, logs, metrics
        self._objects, self._wakeups = objects, wakeups
        self._manifests: OrderedDict[str, Manifest] = OrderedDict()
        self._fetching: dict[LogKey, asyncio.Lock] = {}

    async def read_run_log(
        self, run_id: str, path: str, where: Where, attempt: int | None = None
    ) -> Piece:
        """Bytes of a run's log. Raises NotFoundError ``run.not_found``, ``log.not_found``.

        ``path`` is what the log is called while ``attempt`` is the latest; None: the attempt that
        is. Who reads on asks for the attempt of the first answer, whatever has come since. A log
        that is not there, or has no more bytes, is waited for while its attempt lasts.
        """
        keys = [run_key(run_id), log_key(run_id)]
        if path == BUILD_LOG:
            keys.append(log_key(await self._build_owner(run_id, where.wait_s)))

        async def look() -> Piece | NotFoundError | None:
            nonlocal attempt
            run = await self._queries.run(run_id)
            if run is None:
                return None
            entries = await self._logs.of(run_id)
            latest = _latest(run, entries)
            attempt = attempt or latest
            entry = (await self._named(run, entries, attempt)).get(path)
            over = run.over or attempt < latest
            if entry is None:
                return _no_log(run_id, path) if over else None
            piece = await self._piece(entry, where, over=over)
            return piece and replace(piece, attempt=attempt)

        found = await look() or await self._wakeups.until(keys, where.wait_s, look)
        if isinstance(found, NotFoundError):
            raise found
        if found is not None:
            return found
        run = await self._known(run_id)
        named = await self._named(run, await self._logs.of(run_id), attempt or 0)
        if path not in named:
            raise _no_log(run_id, path)
        return Piece(b"", where.offset, closed=False, attempt=attempt or 0)

    async def read_build_log(self, env_id: str, build: int, where: Where) -> Piece:
        """Bytes of a build's log. Raises NotFoundError ``log.not_found``."""
        key = LogKey(env_id, build, BUILD)

        async def look() -> Piece | None:
            entry = await self._logs.get(key)
            return None if entry is None else await self._piece(entry, where, over=False)

        found = await self._wakeups.until([log_key(env_id)], where.wait_s, look)
        if found is not None:
            return found
        if await self._logs.get(key) is None:
            raise _no_log(env_id, BUILD_LOG)
        return Piece(b"", where.offset, closed=False)

    async def logs(self, run_id: str) -> list[LogView]:
        """All logs of a run. Raises NotFoundError ``run.not_found``."""
        shown = await self._shown(await self._known(run_id))
        return [
            LogView(path=path, bytes=each.bytes, closed=each.closed, sha256=each.sha256)
            for path, each in sorted(shown.items())
        ]

    async def files(self, run_id: str) -> list[RunFileView]:
        """Outputs and logs of a run. Raises NotFoundError ``run.not_found``."""
        run = await self._known(run_id)
        files = {
            path: RunFileView(
                path=path, size=each.bytes, sha256=each.sha256 if each.stored else None
            )
            for path, each in (await self._shown(run)).items()
        }
        for file in await self._outputs(run):
            files.setdefault(file.path, file)
        return [files[path] for path in sorted(files)]

    async def _outputs(self, run: Run) -> list[RunFileView]:
        digest = run.detail.archive_manifest or run.detail.outputs_manifest
        manifest = await self._manifest(digest) if digest is not None else None
        files = {
            each.path: RunFileView(path=each.path, size=each.size, sha256=each.sha256)
            for each in (manifest.entries if manifest else ())
        }
        if manifest is None or run.detail.archive_manifest is None:
            live = await self._metrics.live_files(run.state.run_id, run.state.attempt)
            for path, (size, sha) in live.items():
                files.setdefault(path, RunFileView(path=path, size=size, sha256=sha))
        return list(files.values())

    async def _manifest(self, digest: str) -> Manifest | None:
        """A manifest, None for one that is not there or malformed."""
        if digest not in self._manifests:
            try:
                manifest = await self._objects.get_manifest(digest)
            except (NotFoundError, ProtocolError):
                return None
            if len(manifest.entries) > KEPT_ENTRIES:
                return manifest
            self._manifests[digest] = manifest
            if len(self._manifests) > MANIFESTS_KEPT:
                self._manifests.popitem(last=False)
        self._manifests.move_to_end(digest)
        return self._manifests[digest]

    async def _shown(self, run: Run) -> dict[str, Log]:
        """The logs of a run by the paths they have in it."""
        entries = await self._logs.of(run.state.run_id)
        return await self._named(run, entries, _latest(run, entries))

    async def _named(self, run: Run, entries: list[Log], latest: int) -> dict[str, Log]:
        """The logs up to an attempt by the paths they have while that is the latest."""
        shown = {
            shown_path(each, latest): each
            for each in entries
            if each.key.stream != BUILD and each.key.attempt <= latest
        }
        if run.detail.build_log is not None:
            env_id, build = run.detail.build_log
            log = await self._logs.get(LogKey(env_id, build, BUILD))
            if log is not None:
                shown[BUILD_LOG] = log
        return shown

    async def _piece(self, entry: Log, where: Where, *, over: bool) -> Piece | None:
        """Bytes at the offset, or what is known when there are none; None to wait on."""
        if entry.stored and not entry.local and where.offset < entry.bytes:
            entry = await self._here(entry)
        try:
            data = await self._logs.read(entry, where.offset, where.limit)
        except FileNotFoundError:
            # Removed between the row and the file: the next look finds it stored only.
            now = await self._logs.get(entry.key)
            if now is None or not now.stored:
                raise
            data = await self._logs.read(await self._here(now), where.offset, where.limit)
        following = where.offset + len(data)
        closed = entry.closed and following >= entry.bytes
        return Piece(data, following, closed) if data or entry.closed or over else None

    async def _here(self, entry: Log) -> Log:
        """The log with its file fetched back from the object store."""
        async with self._fetching.setdefault(entry.key, asyncio.Lock()):
            now = await self._logs.get(entry.key)
            if now is not None and not now.local and now.sha256 is not None:
                await self._objects.fetch(now.sha256, self._logs.path(now.key), now.bytes)
                await self._logs.local_again(now)
        self._fetching.pop(entry.key, None)
        return replace(entry, local=True)

    async def _build_owner(self, run_id: str, wait_s: float) -> str:
        """The environment whose build log a run shows. Raises NotFoundError ``log.not_found``."""

        async def look() -> str | None:
            run = await self._queries.run(run_id)
            if run is None or (run.detail.build_log is None and not run.over):
                return None
            return run.detail.build_log[0] if run.detail.build_log else ""

        found = await self._wakeups.until([run_key(run_id)], wait_s, look)
        if not found:
            await self._known(run_id)
            raise _no_log(run_id, BUILD_LOG)
        return found

    async def _known(self, run_id: str) -> Run:
        run = await self._queries.run(run_id)
        if run is None:
            raise not_found(run_id)
        return run


def _latest(run: Run, entries: Iterable[Log]) -> int:
    attempts = [each.key.attempt for each in entries if each.key.stream != BUILD]
    return max([run.state.attempt, *attempts])


def _no_log(owner: str, path: str) -> NotFoundError:
    return NotFoundError(
        f"path: {owner} has no log {path[:200]!r} (yet).", code="log.not_found", field="path"
    )
