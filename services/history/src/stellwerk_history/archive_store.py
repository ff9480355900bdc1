"""Archives that are owed, and the transaction that answers one."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, select
from sqlalchemy.engine import Connection

from stellwerk.events import ArchiveFailed, ExitSummary, RunArchived
from stellwerk_history import rows
from stellwerk_history.closing import BUILD, Log, LogKey
from stellwerk_history.log_store import seal
from stellwerk_history.store import CONSUMER
from stellwerk_history.tables import archives
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.prepared import Prepared

MAX_PENDING = 1000

# Statements are made once: building one costs more than running it.
_PENDING = Prepared(select(archives).limit(MAX_PENDING))
_OWED = Prepared(
    delete(archives).where(
        archives.c.run_id == bindparam("run"), archives.c.event_id == bindparam("event")
    )
)


@dataclass(frozen=True, slots=True)
class Pending:
    """An attempt that is over. ``exit`` is None where nobody saw its end."""

    run_id: str
    attempt: int
    exit: ExitSummary | None
    event_id: str


@dataclass(frozen=True, slots=True)
class Owed:
    """Archives that want an answer, when events were projected up to a place in the stream."""

    archives: list[Pending]
    projected: int


class ArchiveStore:
    """Transactions on pending archives."""

    def __init__(self, db: Database, now: Callable[[], float]) -> None:
        self._db, self._now = db, now

    async def owed(self) -> Owed:
        """What is owed, at most 1,000 at a time."""

        def work(conn: Connection) -> Owed:
            archives = [
                Pending(
                    run_id=row.run_id,
                    attempt=row.attempt,
                    exit=ExitSummary.model_validate_json(row.exit) if row.exit else None,
                    event_id=row.event_id,
                )
                for row in _PENDING.all(conn, {})
            ]
            return Owed(archives, rows.read_position(conn, CONSUMER))

        return await self._db.look(work)

    async def build_log(self, run_id: str) -> LogKey | None:
        """The build log a run shows."""
        shown = await self._db.look(lambda conn: rows.load_build_log(conn, run_id))
        return None if shown is None else LogKey(*shown, BUILD)

    async def answer(
        self, pending: Pending, event: RunArchived | ArchiveFailed, sealed: Iterable[Log]
    ) -> None:
        """Seal the logs and emit the answer, once."""
        entries = list(sealed)

        def work(tx: Tx) -> None:
            owed = {"run": pending.run_id, "event": pending.event_id}
            if _OWED.run(tx.conn, owed) == 0:
                return
            seal(tx.conn, entries, self._now())
            tx.emit(event, causation_id=pending.event_id)

        await self._db.write(work)
