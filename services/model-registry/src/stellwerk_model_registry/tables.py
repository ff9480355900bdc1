"""The tables of the model registry."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# Paging by name needs byte order, which is SQLite's own.
_NAME = String(255).with_variant(String(255, collation="C"), "postgresql")
_TIME = DateTime(timezone=True)

# What ended runs left behind: where models come from.
runs = Table(
    "runs",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("state", String(20), nullable=False),
    Column("outputs_manifest", String(64)),
    Column("lineage", JSON, nullable=False),
    Column("ended_at", _TIME, nullable=False),
    Index("runs_by_state", "state", "ended_at"),
)

names = Table(
    "names",
    metadata,
    Column("name", _NAME, primary_key=True),
    # Counts on after a deletion: a version number never means two things.
    Column("last_version", Integer, nullable=False),
)

# Answered requests by their Idempotency-Key: a repeat is the same version.
registrations = Table(
    "registrations",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("fingerprint", String(64), nullable=False),
    Column("name", _NAME, nullable=False),
    Column("version", Integer, nullable=False),
    Column("made_at", _TIME, nullable=False, index=True),
)

models = Table(
    "models",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("run_id", String(40), index=True),
    Column("path", Text),
    Column("manifest", String(64), nullable=False),
    Column("files", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("description", Text),
    Column("framework", String(100)),
    Column("framework_version", String(100)),
    Column("properties", JSON, nullable=False),
    Column("lineage", JSON, nullable=False),
    Column("created_at", _TIME, nullable=False),
)

# Tags in rows, so that lists can be filtered by them.
tags = Table(
    "tags",
    metadata,
    Column("name", _NAME, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("key", String(255), primary_key=True),
    Column("value", Text),
    ForeignKeyConstraint(
        ["name", "version"], ["models.name", "models.version"], ondelete="CASCADE"
    ),
    Index("tags_by_key", "key"),
)


def aware(time: datetime) -> datetime:
    """``time`` in UTC: SQLite gives back what is stored without its zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
