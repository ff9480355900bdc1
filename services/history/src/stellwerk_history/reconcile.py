"""What is owed whatever happened: archives that are pending, log files beyond their room."""

from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from stellwerk_history.archive_store import MAX_PENDING, ArchiveStore, Pending
from stellwerk_history.archiver import Archiver
from stellwerk_history.log_store import LogStore

ARCHIVES_S = 30.0
PRUNE_S = 600.0

log = structlog.get_logger()


class Archives:
    """Begins pending archives, each once at a time."""

    def __init__(
        self,
        store: ArchiveStore,
        archiver: Archiver,
        spawn: Callable[[str, Coroutine[Any, Any, None]], object],
    ) -> None:
        self._store, self._archiver, self._spawn = store, archiver, spawn
        self._active: set[str] = set()
        """Under way, or answered and its answer not projected yet."""
        self._said: dict[str, int] = {}
        """Of those, the answers that only a projection settles, by their place in the stream."""

    async def sweep(self) -> None:
        """Begin what is pending and not under way."""
        owed = await self._store.owed()
        if len(owed.archives) < MAX_PENDING:
            self._active &= {pending.event_id for pending in owed.archives}
            self._said = {key: self._said[key] for key in self._said.keys() & self._active}
        for pending in owed.archives:
            key, aloud = pending.event_id, True
            if key in self._said and self._said[key] <= owed.projected:
                # The projection has left its answer out, and would do so again.
                log.warning("answer not projected", action="archive_unsaid", run_id=pending.run_id)
                del self._said[key]
                aloud = False
            elif key in self._active:
                continue
            self._active.add(key)
            self._spawn(f"archive-{pending.run_id}", self._archive(pending, aloud=aloud))

    async def _archive(self, pending: Pending, *, aloud: bool) -> None:
        try:
            said = await self._archiver.archive(pending, aloud=aloud)
            if said is not None:
                self._said[pending.event_id] = said
        except Exception:
            # Stays pending, so the next sweep tries again; other runs are not held up by it.
            log.exception("archive broke off", action="archive_broken", run_id=pending.run_id)
            self._active.discard(pending.event_id)


def prune(logs: LogStore, limit_bytes: int) -> Callable[[], Coroutine[Any, Any, None]]:
    """Deletes log files that are stored and do not fit their room any more."""

    async def sweep() -> None:
        removed = await logs.prune(limit_bytes)
        if removed:
            log.info("log files removed", action="logs_pruned", files=removed)

    return sweep
