"""Keeps bounded what is only of use for a while: unsuccessful runs, and keys of requests."""

from datetime import timedelta

import structlog

from stellwerk_kit.clock import Clock
from stellwerk_model_registry.store import ModelStore

INTERVAL_S = 6 * 3600.0
KEYS_KEPT = timedelta(days=7)

log = structlog.get_logger()


async def sweep(store: ModelStore, clock: Clock, unsuccessful_days: int) -> None:
    """Forget failed and canceled runs after ``unsuccessful_days`` days, keys after a week."""
    forgotten = await store.forget_unsuccessful(clock.now() - timedelta(days=unsuccessful_days))
    await store.forget_registrations(clock.now() - KEYS_KEPT)
    if forgotten:
        log.info("old runs forgotten", action="runs_forgotten", runs=forgotten)
