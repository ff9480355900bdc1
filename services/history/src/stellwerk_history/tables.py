"""The tables of the history service.

``position`` of a run is the place of its submission in the event stream: unique, growing, the
same after a rebuild. Tables that lists are ordered by carry it, so that no list is ever sorted.
"""

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# Keyset pages on names need byte order, which is SQLite's own.
_NAME = String(255).with_variant(String(255, collation="C"), "postgresql")
_TEXT = Text().with_variant(Text(collation="C"), "postgresql")
_ID = String(40)
_DIGEST = String(64)
_TIME = DateTime(timezone=True)

# How far each consumer has come in its stream, written with what it did.
positions = Table(
    "positions",
    metadata,
    Column("consumer", String(60), primary_key=True),
    Column("sequence", BigInteger, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("position", BigInteger, nullable=False, unique=True),
    Column("experiment", _NAME, nullable=False),
    Column("number", Integer, nullable=False),
    Column("status", String(20), nullable=False),
    Column("target", String(32), nullable=False),
    Column("parent_run_id", _ID),
    Column("display_name", String(255)),
    Column("name_key", _NAME, nullable=False),
    Column("duration_key", Float, nullable=False),
    Column("state", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("cancel_requested", Boolean, nullable=False),
    Column("not_responding", Boolean, nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("owner_sequence", Integer, nullable=False),
    Column("submitted_by", String(255)),
    Column("submitted_at", _TIME, nullable=False),
    Column("detail", Text, nullable=False),
    Index("runs_experiment", "experiment", "position"),
    Index("runs_status", "status", "position"),
    Index("runs_target", "target", "position"),
    Index("runs_parent", "parent_run_id", "position"),
    Index("runs_name", "name_key", "position"),
    Index("runs_duration", "duration_key", "position"),
    Index("runs_experiment_name", "experiment", "name_key", "position"),
    Index("runs_experiment_status", "experiment", "status", "position"),
    Index("runs_experiment_duration", "experiment", "duration_key", "position"),
)

specs = Table(
    "specs",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("spec", Text, nullable=False),
)

experiments = Table(
    "experiments",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("runs", Integer, nullable=False),
    Column("last_run_at", _TIME, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("event_id", String(300), nullable=False),
    Column("type", String(60), nullable=False),
    Column("time", _TIME, nullable=False),
    Column("status", String(20), nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("message", Text, nullable=False),
    Column("phases", Text, nullable=False),
    Column("data", Text, nullable=False),
    Index("events_id", "run_id", "event_id", unique=True),
)

# Tags and properties. ``position`` is null until the run's submission is known.
labels = Table(
    "labels",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("kind", String(10), primary_key=True),
    Column("name", _NAME, primary_key=True),
    Column("value", _TEXT),
    Column("position", BigInteger),
    Index("labels_name", "kind", "name", "position"),
    Index("labels_value", "kind", "name", "value", "position"),
)

metrics = Table(
    "metrics",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("kind", String(10), nullable=False),
    Column("value", Text, nullable=False),
    Column("step", BigInteger),
    Column("time", Float, nullable=False),
    sqlite_with_rowid=False,
)

# The last numeric value of each metric of a run's latest attempt: what leaderboards are made of.
latest = Table(
    "latest",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("name", Text, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("value", Float, nullable=False),
    Column("experiment", _NAME),
    Column("position", BigInteger),
    Index("latest_name", "name", "value", "position"),
    Index("latest_experiment", "experiment", "name", "value", "position"),
)

# How many records of an attempt have arrived from its executor, without a gap.
attempts = Table(
    "attempts",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("records", Integer, nullable=False),
)

# The same for other writers than the executor: clients that log into a run.
writers = Table(
    "writers",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("writer", _ID, primary_key=True),
    Column("records", Integer, nullable=False),
)

# Files a run gave while it ran; its outputs manifest replaces them at the end.
live_files = Table(
    "live_files",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("path", Text, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", _DIGEST, nullable=False),
)

# ``bytes`` are on the disk for certain. A closed log with a digest is in the object store;
# ``local`` says whether its file is still here.
logs = Table(
    "logs",
    metadata,
    Column("owner", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("stream", _ID, primary_key=True),
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("closed", Boolean, nullable=False),
    Column("sha256", _DIGEST),
    Column("stored", Boolean, nullable=False),
    Column("local", Boolean, nullable=False),
    Column("used_at", Float, nullable=False),
    Index("logs_local", "local", "stored", "used_at"),
)

# Chunks that came before what lies in front of them.
parked_logs = Table(
    "parked_logs",
    metadata,
    Column("owner", _ID, primary_key=True),
    Column("attempt", Integer, primary_key=True),
    Column("stream", _ID, primary_key=True),
    Column("offset", BigInteger, primary_key=True),
    Column("data", LargeBinary, nullable=False),
    Column("final", Boolean, nullable=False),
)

# Post-processing that is owed: one row from RunFinalizing until the answer is committed.
archives = Table(
    "archives",
    metadata,
    Column("run_id", _ID, primary_key=True),
    Column("attempt", Integer, nullable=False),
    Column("exit", Text),
    Column("event_id", String(300), nullable=False),
)


def aware(time: datetime) -> datetime:
    """``time`` in UTC: SQLite gives back what is stored without its zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
