"""The verbs other services ask (``docs/architecture.md`` §4) and their requests."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from stellwerk.answers import ExperimentView, FileList, LogList, MetricList
from stellwerk.api import Page, RunEventView, RunPatch, RunView, View
from stellwerk.runstate import RunStatus
from stellwerk_history.metric_store import MetricStore
from stellwerk_history.paging import parse_order
from stellwerk_history.patching import Patches, not_found
from stellwerk_history.queries import Queries, RunFilter, fitting
from stellwerk_history.reading import Piece, Reader, Where
from stellwerk_history.series import SeriesReader, Wanted
from stellwerk_history.wakeups import MAX_WAIT_S, Wakeups, metric_key, run_key
from stellwerk_kit.clock import Clock
from stellwerk_kit.rpc import RawReply

MAX_PIECE = 256 * 1024

WaitS = Annotated[float, Field(ge=0, le=MAX_WAIT_S)]
Text = Annotated[str, Field(max_length=1000)]
Limit = Annotated[int, Field(ge=1, le=200)]
Number = Annotated[int, Field(ge=0, lt=2**62)]


class Request(BaseModel):
    """Base of all requests."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class RunGet(Request):
    """One run; one that is not known yet is waited for."""

    run_id: Text
    wait_s: WaitS = 0.0


class RunList(Request):
    """A page of runs; ``search`` is the beginning of a run id or a part of a name."""

    experiment: Text | None = None
    status: RunStatus | None = None
    tag: Text | None = None
    property: Text | None = None
    target: Text | None = None
    parent_run_id: Text | None = None
    ancestor_run_id: Text | None = None
    search: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    order: Text = "newest"
    limit: Limit = 50
    cursor: str | None = None


class RunEvents(Request):
    """Entries of a run's status stream after a sequence."""

    run_id: Text
    after: Number = 0
    limit: Limit = 200
    wait_s: WaitS = 0.0


class EventsReply(View):
    """``terminal``: the run is over."""

    events: tuple[RunEventView, ...] = ()
    terminal: bool = False


class RunChange(Request):
    """What to change in a run."""

    run_id: Text
    patch: RunPatch


class OfRun(Request):
    """All of something a run has."""

    run_id: Text


class FilesQuery(Request):
    """Files of a run behind a path."""

    run_id: Text
    after: Annotated[str, Field(max_length=4096)] | None = None


class FilesReply(FileList):
    """Files by path; with ``next`` there are more: pass it as ``after``."""

    next: str | None = None


class LogRead(Request):
    """Bytes of a run's log, called ``path`` while ``attempt`` is the latest (None: as it is)."""

    run_id: Text
    path: Annotated[str, Field(max_length=4096)]
    attempt: Annotated[int, Field(ge=1, lt=2**31)] | None = None
    offset: Number = 0
    limit: Annotated[int, Field(ge=1)] = MAX_PIECE
    wait_s: WaitS = 0.0


class BuildLogRead(Request):
    """Bytes of a build's log."""

    env_id: Text
    build: Annotated[int, Field(ge=0, lt=2**31)]
    offset: Number = 0
    limit: Annotated[int, Field(ge=1)] = MAX_PIECE
    wait_s: WaitS = 0.0


class MetricsQuery(Request):
    """Values of a run's latest attempt after a sequence."""

    run_id: Text
    name: Text | None = None
    after: Number = 0
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000


class SeriesQuery(Request):
    """All values of a run's latest attempt, ``recursive`` those of all runs below it too."""

    run_id: Text
    name: Text | None = None
    recursive: bool = False
    cursor: Text | None = None


class RecordsSeen(Request):
    """Whether the record stream has been read up to a sequence; waits until it has."""

    run_id: Text
    position: Number
    wait_s: WaitS = 0.0


class SeenReply(View):
    """Answer to :class:`RecordsSeen`."""

    seen: bool


class AncestorsReply(View):
    """The parent first."""

    run_ids: tuple[str, ...] = ()


class NamesQuery(Request):
    """A page of names."""

    limit: Limit = 50
    cursor: str | None = None


class Verbs:
    """The answers."""

    def __init__(
        self,
        queries: Queries,
        patches: Patches,
        metrics: MetricStore,
        series: SeriesReader,
        reader: Reader,
        wakeups: Wakeups,
        clock: Clock,
    ) -> None:
        self._queries, self._patches = queries, patches
        self._metrics, self._series = metrics, series
        self._reader, self._wakeups, self._clock = reader, wakeups, clock

    async def run_get(self, request: RunGet) -> RunView:
        """``run-get``."""

        async def look() -> RunView | None:
            return await self._queries.view(request.run_id, self._clock.now())

        found = await self._wakeups.until([run_key(request.run_id)], request.wait_s, look)
        if found is None:
            raise not_found(request.run_id)
        return found

    async def run_list(self, request: RunList) -> Page[RunView]:
        """``run-list``."""
        wanted = RunFilter(
            **request.model_dump(exclude={"order", "limit", "cursor", "status"}),
            status=request.status and str(request.status),
        )
        order = parse_order(request.order)
        now = self._clock.now()
        return await self._queries.list_runs(wanted, order, request.limit, request.cursor, now)

    async def run_events(self, request: RunEvents) -> EventsReply:
        """``run-events``."""
        known = False

        async def look() -> EventsReply | None:
            nonlocal known
            read = await self._queries.events(request.run_id, request.after, request.limit)
            if read is None:
                return None
            known, (run, found) = True, read
            if found or run.over:
                return EventsReply(events=tuple(found), terminal=run.over)
            return None

        reply = await self._wakeups.until([run_key(request.run_id)], request.wait_s, look)
        if reply is None and not known:
            raise not_found(request.run_id)
        return reply or EventsReply()

    async def run_patch(self, request: RunChange) -> RunView:
        """``run-patch``."""
        return await self._patches.patch(request.run_id, request.patch, self._clock.now())

    async def run_logs(self, request: OfRun) -> LogList:
        """``run-logs``."""
        return LogList(logs=tuple(await self._reader.logs(request.run_id)))

    async def log_read(self, request: LogRead) -> RawReply:
        """``log-read``."""
        where = Where(request.offset, min(request.limit, MAX_PIECE), request.wait_s)
        piece = await self._reader.read_run_log(
            request.run_id, request.path, where, request.attempt
        )
        return _raw(piece)

    async def build_log_read(self, request: BuildLogRead) -> RawReply:
        """``build-log-read``."""
        where = Where(request.offset, min(request.limit, MAX_PIECE), request.wait_s)
        return _raw(await self._reader.read_build_log(request.env_id, request.build, where))

    async def run_files(self, request: FilesQuery) -> FilesReply:
        """``run-files``."""
        files = await self._reader.files(request.run_id)
        left = [file for file in files if request.after is None or file.path > request.after]
        shown = fitting(left)
        more = shown[-1].path if len(shown) < len(left) else None
        return FilesReply(files=tuple(shown), next=more)

    async def run_metrics(self, request: MetricsQuery) -> MetricList:
        """``run-metrics``."""
        run = await self._queries.run(request.run_id)
        if run is None:
            raise not_found(request.run_id)
        attempt = max(run.state.attempt, await self._metrics.newest_attempt(request.run_id))
        points = await self._metrics.points(
            request.run_id, attempt, request.name, request.after, request.limit + 1
        )
        shown = fitting(points[: request.limit])
        more = shown[-1].sequence if len(shown) < len(points) else None
        return MetricList(points=tuple(shown), next=more)

    async def metric_series(self, request: SeriesQuery) -> RawReply:
        """``metric-series``: JSON as it goes to the client."""
        wanted = Wanted(request.run_id, request.name, request.recursive, request.cursor)
        page = await self._series.page(wanted)
        if page is None:
            raise not_found(request.run_id)
        return RawReply(page)

    async def records_seen(self, request: RecordsSeen) -> SeenReply:
        """``records-seen``."""

        async def look() -> SeenReply | None:
            reached = await self._metrics.position() >= request.position
            return SeenReply(seen=True) if reached else None

        keys = [metric_key(request.run_id)]
        found = await self._wakeups.until(keys, request.wait_s, look)
        return found or SeenReply(seen=False)

    async def run_ancestors(self, request: OfRun) -> AncestorsReply:
        """``run-ancestors``."""
        return AncestorsReply(run_ids=tuple(await self._queries.ancestors(request.run_id)))

    async def experiment_list(self, request: NamesQuery) -> Page[ExperimentView]:
        """``experiment-list``."""
        return await self._queries.experiments(request.limit, request.cursor)


def _raw(piece: Piece) -> RawReply:
    headers = {
        "Sw-Next-Offset": str(piece.next_offset),
        "Sw-Closed": "1" if piece.closed else "0",
        "Sw-Attempt": str(piece.attempt),
    }
    return RawReply(piece.data, headers)
