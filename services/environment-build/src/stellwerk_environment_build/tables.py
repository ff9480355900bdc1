"""The tables of the environment-build service."""

from datetime import UTC, datetime

from sqlalchemy import JSON, Boolean, Column, DateTime, Integer, MetaData, String, Table, Text

metadata = MetaData()

_TIME = DateTime(timezone=True)

environments = Table(
    "environments",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("definition", JSON, nullable=False),
    Column("env_id", String(40), nullable=False),
    Column("warnings", JSON, nullable=False),
    Column("created_at", _TIME, nullable=False),
)

# One row an environment: its build under way, or its last one.
builds = Table(
    "builds",
    metadata,
    Column("env_id", String(40), primary_key=True),
    Column("build", Integer, nullable=False),
    Column("state", String(10), nullable=False, index=True),
    Column("spec", JSON, nullable=False),
    Column("rebuild", Boolean, nullable=False),
    Column("interruptions", Integer, nullable=False),
    Column("started_at", _TIME, nullable=False),
    Column("result", JSON),
    Column("reason", String(30)),
    Column("message", Text),
)

waiters = Table(
    "waiters",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("env_id", String(40), primary_key=True, index=True),
    Column("name", String(255)),
    Column("version", Integer),
    Column("variables", JSON, nullable=False),
    Column("warnings", JSON, nullable=False),
)


def aware(time: datetime) -> datetime:
    """``time`` in UTC: SQLite gives back what is stored without its zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
