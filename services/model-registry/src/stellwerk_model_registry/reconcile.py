"""Keeps the list of ended runs bounded: nobody registers models from unsuccessful ones."""

from datetime import timedelta

import structlog

from stellwerk_kit.clock import Clock
from stellwerk_model_registry.store import ModelStore

INTERVAL_S = 6 * 3600.0

log = structlog.get_logger()


async def sweep(store: ModelStore, clock: Clock, unsuccessful_days: int) -> None:
    """Forget failed and canceled runs after ``unsuccessful_days`` days."""
    forgotten = await store.forget_unsuccessful(clock.now() - timedelta(days=unsuccessful_days))
    if forgotten:
        log.info("old runs forgotten", action="runs_forgotten", runs=forgotten)
