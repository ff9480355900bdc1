"""Composition root of the history service."""

from stellwerk_history import log_store, metric_store, reconcile, store
from stellwerk_history import verbs as v
from stellwerk_history.archive_store import ArchiveStore
from stellwerk_history.archiver import Archiver
from stellwerk_history.handlers import on_events, on_logs, on_metrics
from stellwerk_history.log_store import LogStore
from stellwerk_history.logfiles import LogFiles
from stellwerk_history.metric_store import MetricStore
from stellwerk_history.patching import Patches
from stellwerk_history.queries import Queries
from stellwerk_history.reading import Reader
from stellwerk_history.series import SeriesReader
from stellwerk_history.settings import Settings
from stellwerk_history.store import ProjectionStore
from stellwerk_history.stream import InOrder
from stellwerk_history.tables import metadata
from stellwerk_history.verifying import Limits, Verifier
from stellwerk_history.wakeups import Wakeups
from stellwerk_kit.service import Runtime, Trigger


async def build(runtime: Runtime[Settings]) -> None:
    """Compose the service on ``runtime``."""
    settings, clock = runtime.settings, runtime.clock

    def seconds() -> float:
        return clock.now().timestamp()

    db = await runtime.database(metadata)
    objects = await runtime.objects()
    wakeups = Wakeups()
    projection, metrics, queries = ProjectionStore(db), MetricStore(db), Queries(db)
    logs = LogStore(db, LogFiles(settings.log_dir), seconds)
    runtime.on_stop(logs.close)

    limits = Limits(settings.archive_limit_s, settings.archive_retry_s, settings.archive_parallel)
    owed = ArchiveStore(db, seconds)
    verifier = Verifier(owed, logs, metrics, objects, wakeups, clock, limits)
    archiver = Archiver(verifier, owed, logs, objects, wakeups, clock, limits, runtime.voice)
    archives = reconcile.Archives(owed, archiver, runtime.spawn)
    prune = reconcile.prune(logs, settings.log_cache_bytes)
    runtime.every("prune-logs", reconcile.PRUNE_S, prune).hint()

    begin: Trigger | None = None

    def finalizing() -> None:
        if begin is not None:  # not while the past is still being read: its archives are answered
            begin.hint()

    handlers = {
        store.CONSUMER: on_events(projection, wakeups, finalizing),
        metric_store.CONSUMER: on_metrics(metrics, wakeups),
        log_store.CONSUMER: on_logs(logs, wakeups),
    }
    streams = {
        consumer: InOrder(runtime.bus, consumer, await projection.position(consumer), handle)
        for consumer, handle in handlers.items()
    }
    for consumer, in_order in streams.items():
        await in_order.recover()
        runtime.consume_batch(consumer, in_order, wakeups.haste)

    async def archive() -> None:
        await streams[store.CONSUMER].past.wait()
        await archives.sweep()

    begin = runtime.every("archives", reconcile.ARCHIVES_S, archive)
    begin.hint()

    reader = Reader(queries, logs, metrics, objects, wakeups)
    verbs = v.Verbs(queries, Patches(db), metrics, SeriesReader(db), reader, wakeups, clock)
    runtime.rpc("run-get", v.RunGet, verbs.run_get)
    runtime.rpc("run-list", v.RunList, verbs.run_list)
    runtime.rpc("run-events", v.RunEvents, verbs.run_events)
    runtime.rpc("run-patch", v.RunChange, verbs.run_patch)
    runtime.rpc("run-logs", v.OfRun, verbs.run_logs)
    runtime.rpc("log-read", v.LogRead, verbs.log_read)
    runtime.rpc("build-log-read", v.BuildLogRead, verbs.build_log_read)
    runtime.rpc("run-files", v.FilesQuery, verbs.run_files)
    runtime.rpc("run-metrics", v.MetricsQuery, verbs.run_metrics)
    runtime.rpc("metric-series", v.SeriesQuery, verbs.metric_series)
    runtime.rpc("records-seen", v.RecordsSeen, verbs.records_seen)
    runtime.rpc("run-ancestors", v.OfRun, verbs.run_ancestors)
    runtime.rpc("experiment-list", v.NamesQuery, verbs.experiment_list)
