"""The table of the keyvault: no column of it holds a value in the clear."""

from datetime import UTC, datetime

from sqlalchemy import Column, DateTime, LargeBinary, MetaData, String, Table

metadata = MetaData()

# Paging by name needs byte order, which is SQLite's own.
_NAME = String(127).with_variant(String(127, collation="C"), "postgresql")
_TIME = DateTime(timezone=True)

secrets = Table(
    "secrets",
    metadata,
    Column("folded", _NAME, primary_key=True),
    Column("name", String(127), nullable=False),
    Column("key_id", String(40), nullable=False, index=True),
    Column("sealed", LargeBinary, nullable=False),
    Column("created_at", _TIME, nullable=False),
    Column("updated_at", _TIME, nullable=False),
)


def aware(time: datetime) -> datetime:
    """``time`` in UTC: SQLite gives back what is stored without its zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
