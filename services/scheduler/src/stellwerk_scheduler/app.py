"""Composition of the scheduler."""

from stellwerk.api import ComputeRequest
from stellwerk_kit.service import Runtime
from stellwerk_scheduler import run_rows, service_state
from stellwerk_scheduler.compute import (
    Compute,
    ComputeList,
    ComputeName,
    ComputeUpdate,
    ensure_local,
)
from stellwerk_scheduler.handlers import CONSUMER, FactHandlers
from stellwerk_scheduler.leases import Leases
from stellwerk_scheduler.reconcile import Reconciler
from stellwerk_scheduler.scaling import Scaler
from stellwerk_scheduler.settings import Settings
from stellwerk_scheduler.store import RunStore
from stellwerk_scheduler.tables import metadata
from stellwerk_scheduler.uptime import Uptime
from stellwerk_scheduler.verbs import AttemptConfirm, LeaseRenew, QueueGet, RunVerbs

CLOCK_STEPS = 10
CLOCK_SAVES = 15


async def build(runtime: Runtime[Settings]) -> None:
    """Compose the service on ``runtime``."""
    settings, limits = runtime.settings, runtime.settings.limits()
    db = await runtime.database(metadata)
    await db.write(lambda tx: ensure_local(tx, settings.local_max_nodes, settings.local_idle_s))
    uptime = Uptime(
        runtime.clock,
        lambda: runtime.bus.connected,
        await db.read(service_state.elapsed),
        longest_step_s=CLOCK_STEPS * settings.reconcile_s,
    )
    forgotten = uptime.now() + limits.kept_s
    await db.write(lambda tx: run_rows.keep_ended_until(tx.conn, forgotten))
    scaler = Scaler(settings.scale_answer_s)
    store, leases = RunStore(limits, scaler), Leases(limits.lease_s)
    reconciler = Reconciler(db, store, scaler, leases, uptime, CLOCK_SAVES * settings.reconcile_s)
    sweeps = runtime.every("reconcile", settings.reconcile_s, reconciler.sweep)
    runtime.on_stop(reconciler.stop)
    handlers = FactHandlers(db, store, scaler, uptime.now, sweeps.hint)
    runtime.consume(CONSUMER, handlers.table())

    tokens = settings.executor_tokens
    verbs = RunVerbs(
        db, leases, uptime.now, None if tokens is None else settings.read_credentials(tokens)
    )
    runtime.rpc("queue-get", QueueGet, verbs.queue)
    runtime.rpc("lease-renew", LeaseRenew, verbs.renew)
    runtime.rpc("attempt-confirm", AttemptConfirm, verbs.confirm)
    runtime.route("/leases/renew", verbs.renew_page)
    runtime.route("/attempts/confirm", verbs.confirm_page)

    compute = Compute(db, store, scaler, uptime.now)
    runtime.rpc("compute-create", ComputeRequest, compute.create)
    runtime.rpc("compute-get", ComputeName, compute.get)
    runtime.rpc("compute-list", ComputeList, compute.list_all)
    runtime.rpc("compute-update", ComputeUpdate, compute.update)
    runtime.rpc("compute-delete", ComputeName, compute.delete)
