"""The projection of events into rows: one transaction a batch.

Whatever an event's content, it cannot stop those behind it: what is unknown, repeated or may not
come is counted and left out.
"""

import json
from dataclasses import dataclass, field
from typing import Any

import structlog
from prometheus_client import Counter
from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection
from sqlalchemy.exc import OperationalError

from stellwerk.events import (
    ArchiveFailed,
    Envelope,
    RunArchived,
    RunAssigned,
    RunFinalizing,
    RunSubmitted,
)
from stellwerk_history import rows
from stellwerk_history.domain import Entry, Run, Skip, apply, concerns, submit
from stellwerk_history.log_store import close
from stellwerk_history.submissions import Submissions
from stellwerk_history.tables import archives, events, latest, runs
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.prepared import Prepared

CONSUMER = "history-events"

SKIPPED = Counter("stellwerk_history_skipped", "Events that changed nothing", ["reason"])

# Statements are made once: building one costs as much as running it.
_SAVE = Prepared(update(runs).where(runs.c.run_id == bindparam("key")))
_ADD = Prepared(insert(events))
_SEEN = Prepared(
    select(events.c.sequence).where(
        events.c.run_id == bindparam("run"), events.c.event_id == bindparam("event")
    )
)
_OWED = archives.c.run_id == bindparam("key")
_OWE = Prepared(insert(archives))
_NO_LONGER = Prepared(delete(archives).where(_OWED))
_ANSWERED = Prepared(delete(archives).where(_OWED, archives.c.attempt <= bindparam("last")))

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Fact:
    """An event and its place in the stream."""

    envelope: Envelope
    position: int


@dataclass(slots=True)
class Projected:
    """What a batch changed."""

    run_ids: set[str] = field(default_factory=set)
    finalizing: bool = False


class ProjectionStore:
    """Runs and their status streams, written from events."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def position(self, consumer: str) -> int:
        """The last stream sequence whose effects are written."""
        return await self._db.read(lambda conn: rows.read_position(conn, consumer))

    async def project(self, facts: list[Fact], position: int) -> Projected:
        """Write what events change, and that the stream was read up to ``position``.

        An event that cannot be written (a number no column holds) is left out; a database that
        cannot write at all raises SQLAlchemy's OperationalError.
        """
        try:
            return await self._project(facts, position)
        except OperationalError:
            raise
        except Exception:
            log.exception("a batch cannot be written at once", action="project_singly")
        done = Projected()
        for fact in facts:
            try:
                one = await self._project([fact], fact.position)
            except OperationalError:
                raise
            except Exception:
                SKIPPED.labels("broken").inc()
                log.exception("event left out", action="event_broken", event_id=fact.envelope.id)
            else:
                done.run_ids |= one.run_ids
                done.finalizing = done.finalizing or one.finalizing
        await self._project([], position)
        return done

    async def _project(self, facts: list[Fact], position: int) -> Projected:

        def work(tx: Tx) -> Projected:
            projection = _Projection(tx.conn, facts)
            for fact in facts:
                projection.take(fact)
            projection.write()
            rows.write_position(tx.conn, CONSUMER, position)
            return projection.done

        # What a power failure takes is read from the stream again, from the position before it.
        return await self._db.write(work, lasting=False)


class _Projection:
    """One batch: everything it needs is read at once, everything it changes is written at once."""

    def __init__(self, conn: Connection, facts: list[Fact]) -> None:
        self._conn = conn
        self.done = Projected()
        run_ids = {run_id for fact in facts for run_id in concerns(fact.envelope)}
        self._runs = rows.load_runs(conn, run_ids)
        self._submissions = Submissions(conn)
        self._new: dict[str, Run] = {}
        self._changed: dict[str, Run] = {}
        self._entries: list[Entry] = []
        self._seen: set[tuple[str, str]] = set()

    def take(self, fact: Fact) -> None:
        """Apply one event to each run it is about."""
        for run_id in concerns(fact.envelope):
            if self._repeated(run_id, fact.envelope.id):
                SKIPPED.labels("repeated").inc()
                continue
            try:
                self._take(run_id, fact)
            except Skip as outcome:
                SKIPPED.labels("not_now").inc()
                log.info("event skipped", action="event_skipped", run_id=run_id, why=str(outcome))

    def write(self) -> None:
        """Write runs and entries."""
        self._submissions.write(self._new)
        changed = [{"key": key, **rows.run_values(run)} for key, run in self._changed.items()]
        _SAVE.each(self._conn, changed)
        _ADD.each(self._conn, [_entry_values(each) for each in self._entries])

    def _take(self, run_id: str, fact: Fact) -> None:
        known = self._runs.get(run_id)
        if known is None:
            run, entry = self._submit(fact)
            self._new[run_id] = run
        else:
            run, entry = apply(known, fact.envelope)
            (self._new if run_id in self._new else self._changed)[run_id] = run
        self._runs[run_id] = run
        self._entries.append(entry)
        self._seen.add((run_id, fact.envelope.id))
        self.done.run_ids.add(run_id)
        self._consequences(fact.envelope)

    def _submit(self, fact: Fact) -> tuple[Run, Entry]:
        event, time = fact.envelope.event, fact.envelope.time
        if not isinstance(event, RunSubmitted):
            raise Skip(f"{type(event).__name__} of an unknown run")
        return submit(fact.envelope, fact.position, self._submissions.add(event, time))

    def _consequences(self, envelope: Envelope) -> None:
        event = envelope.event
        if isinstance(event, RunAssigned) and event.attempt > 1:
            mine = latest.c.run_id == event.run_id
            self._conn.execute(delete(latest).where(mine, latest.c.attempt < event.attempt))
        elif isinstance(event, RunFinalizing):
            summary = event.exit.model_dump_json() if event.exit else None
            _NO_LONGER.run(self._conn, {"key": event.run_id})
            owed = {"run_id": event.run_id, "attempt": event.attempt, "event_id": envelope.id}
            _OWE.run(self._conn, {**owed, "exit": summary})
            self.done.finalizing = True
        elif isinstance(event, RunArchived | ArchiveFailed):
            _ANSWERED.run(self._conn, {"key": event.run_id, "last": event.attempt})
            if isinstance(event, RunArchived):
                close(self._conn, event, envelope.time.timestamp())

    def _repeated(self, run_id: str, event_id: str) -> bool:
        """Whether an event is in the status stream of its run already."""
        if (run_id, event_id) in self._seen:
            return True
        if run_id not in self._runs or run_id in self._new:
            return False
        return _SEEN.first(self._conn, {"run": run_id, "event": event_id}) is not None


def _entry_values(entry: Entry) -> dict[str, Any]:
    return {
        "run_id": entry.run_id,
        "sequence": entry.sequence,
        "event_id": entry.event_id,
        "type": entry.type,
        "time": entry.time,
        "status": entry.status,
        "attempt": entry.attempt,
        "message": entry.message,
        "phases": json.dumps(entry.phases),
        "data": json.dumps(entry.data),
    }
