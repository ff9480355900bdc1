"""SQL on what belongs to the service as a whole: its clock, and what it forgets."""

from datetime import timedelta

from sqlalchemy import Connection, delete, insert, select, update

from stellwerk_kit.db import Tx
from stellwerk_scheduler.tables import early_cancels, service_clock

EARLY_CANCEL_KEPT = timedelta(days=1)


def elapsed(conn: Connection) -> float:
    """Service seconds when they were last written down; 0 for a new store."""
    return conn.execute(select(service_clock.c.elapsed)).scalar() or 0.0


def save_elapsed(conn: Connection, seconds: float) -> None:
    """Write the service clock down."""
    if conn.execute(update(service_clock).values(elapsed=seconds)).rowcount == 0:
        conn.execute(insert(service_clock).values(id=1, elapsed=seconds))


def forget_old(tx: Tx) -> None:
    """A cancellation whose run did not come within a day is forgotten."""
    limit = tx.now - EARLY_CANCEL_KEPT
    tx.conn.execute(delete(early_cancels).where(early_cancels.c.seen_at < limit))
