"""The scheduler's transactions on a real SQLite file, without broker: facts in, outbox out.

A crash is a second Ledger on the same file: all that an earlier process only had in memory is
gone, what it committed and had not published is in the outbox.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, func, select
from sqlalchemy.engine import Connection

from stellwerk.events import Envelope, Event, RunSubmitted, decode
from stellwerk.runstate import RunState, replay
from stellwerk_kit.db import Tables, Tx
from stellwerk_scheduler import pool_rows, run_rows
from stellwerk_scheduler.compute import ensure_local
from stellwerk_scheduler.facts import LeaseExpired
from stellwerk_scheduler.handlers import FactHandlers
from stellwerk_scheduler.model import Limits, Run
from stellwerk_scheduler.scaling import Scaler
from stellwerk_scheduler.store import RunStore, Work
from stellwerk_scheduler.tables import attempts, metadata, nodes, runs

START = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = Limits()
TERMINAL_EVENTS = {"RunCompleted", "RunFailed", "RunCanceled"}


@dataclass
class Ledger:
    path: Path | None
    now: float = 1000.0
    repeats: int = 0
    """Added to the ids of facts: a fact with another id passes the inbox."""
    frozen: bool = False
    """No time passes any more: a redelivered fact brings none with it."""
    tables: Tables = field(init=False)

    def __post_init__(self) -> None:
        url = "sqlite://" if self.path is None else f"sqlite:///{self.path}"
        self.engine = create_engine(url)
        self.tables = Tables.define(metadata)
        with self.engine.begin() as conn:
            conn.exec_driver_sql("PRAGMA synchronous=OFF")
        metadata.create_all(self.engine)
        self.scaler = Scaler(20.0)
        self.store = RunStore(LIMITS, self.scaler)
        db: Any = None
        self.handlers = FactHandlers(db, self.store, self.scaler, lambda: self.now, lambda: None)
        self.write(lambda tx: ensure_local(tx, 2, 60))

    def crash(self) -> "Ledger":
        self.engine.dispose()
        return Ledger(self.path, self.now)

    def write(self, work: Callable[[Tx], Any]) -> Any:
        with self.engine.begin() as conn:
            return work(Tx(conn, self.tables, "/test", START + timedelta(seconds=self.now)))

    def read(self, work: Callable[[Connection], Any]) -> Any:
        with self.engine.connect() as conn:
            return work(conn)

    def hear(self, *facts: Event) -> None:
        for fact in facts:
            envelope = Envelope.wrap(fact, source="/test", time=START)
            if self.repeats:
                envelope = replace(envelope, id=f"{envelope.id}/{self.repeats}")
            self.write(lambda tx, e=envelope: self.handlers.handle_in(tx, e, self.now))

    def _within(self, change: Callable[[Work], object]) -> None:
        def work(tx: Tx) -> None:
            doing = Work(tx, self.now)
            change(doing)
            self.store.settle(doing)

        self.write(work)

    def lease_expires(self, run_id: str = "r1", attempt: int = 1) -> None:
        self._within(lambda work: self.store.hear(work, run_id, LeaseExpired(attempt)))

    def tick(self, seconds: float = 0.0) -> None:
        """Time passes, then the part of a round that is about runs."""
        self.now += 0.0 if self.frozen else seconds
        for run_id in self.read(lambda conn: run_rows.due(conn, self.now, 100)):
            self._within(lambda work, run_id=run_id: self.store.tick(work, run_id))

    def sweep_pools(self) -> None:
        def work(tx: Tx) -> None:
            doing = Work(tx, self.now)
            doing.pools |= self.scaler.ask_again(tx, self.now)
            for pool in pool_rows.all_pools(tx.conn):
                self.scaler.shrink(tx, pool, self.now)
                doing.pools.add(pool.name)
            self.store.settle(doing)

        self.write(work)

    def run(self, run_id: str = "r1") -> Run:
        found: Run | None = self.read(lambda conn: run_rows.load(conn, run_id))
        assert found is not None
        return found

    def outbox(self) -> list[Envelope]:
        table = self.tables.outbox
        rows = self.read(lambda conn: conn.execute(select(table).order_by(table.c.id)).all())
        found = []
        for row in rows:
            headers = dict(line.split(":", 1) for line in row.headers.decode().split("\n"))
            found.append(decode(row.subject, headers, row.body))
        return found

    def emitted(self, run_id: str = "r1") -> list[Envelope]:
        """Numbered events of a run; what was said again under its number is left out."""
        about = [
            e
            for e in self.outbox()
            if e.sequence is not None and getattr(e.event, "run_id", None) == run_id
        ]
        return list({e.id: e for e in reversed(about)}.values())[::-1]

    def names(self, run_id: str = "r1") -> list[str]:
        ordered = sorted(self.emitted(run_id), key=lambda e: e.sequence or 0)
        return [type(e.event).__name__ for e in ordered]

    def latest(self, cls: type[Event]) -> Any:
        return [e.event for e in self.outbox() if isinstance(e.event, cls)][-1]

    def check(self) -> None:
        """What holds after every transaction."""
        for run_id in self.read(lambda conn: conn.execute(select(runs.c.run_id)).scalars().all()):
            check_run(self.run(run_id), self.emitted(run_id))
        live = self.read(run_rows.live_attempts)
        assert {a.key for a in live} == {
            (run.run_id, run.attempt) for run in map(self.run, self._all_ids()) if run.placed
        }
        for node in self.read(lambda conn: conn.execute(select(nodes)).all()):
            used = self.read(
                lambda conn, name=node.node_id: conn.execute(
                    select(func.count()).select_from(attempts).where(attempts.c.node_id == name)
                ).scalar()
            )
            assert node.used == used <= node.slots, node

    def _all_ids(self) -> list[str]:
        found: list[str] = self.read(
            lambda conn: list(conn.execute(select(runs.c.run_id)).scalars())
        )
        return found


def check_run(run: Run, envelopes: list[Envelope]) -> None:
    """Gap-free numbers, one terminal event at the end, and the row equals its replayed events."""
    ordered = sorted(envelopes, key=lambda e: e.sequence or 0)
    assert [e.sequence for e in ordered] == list(range(1, len(ordered) + 1))
    assert run.sequence == len(ordered)
    check_events(run, [e.event for e in ordered])


def check_events(run: Run, events: list[Event]) -> None:
    first: RunSubmitted = run.submitted
    replayed: RunState = replay([first, *events])
    assert replace(replayed, cancel_requested=run.cancel_requested) == run.machine
    endings = [e for e in events if type(e).__name__ in TERMINAL_EVENTS]
    assert len(endings) == int(run.terminal)
    assert not endings or events[-1] is endings[0]
