"""The tables of the dataset service. Keys that may be long web addresses are derived ids."""

from datetime import UTC, datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

# Range queries on paths and names need byte order, which is SQLite's own.
_ORDERED = String(4096).with_variant(String(4096, collation="C"), "postgresql")
_ID = String(32)
_DIGEST = String(64)
_TIME = DateTime(timezone=True)

datasets = Table(
    "datasets",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("kind", String(20), nullable=False),
    Column("source", Text, nullable=False),
    Column("files", Integer, nullable=False),
    Column("single_file", Boolean, nullable=False),
    Column("manifest", _DIGEST),
    Column("bytes", BigInteger),
    Column("files_id", _ID),
    Column("definition", JSON(none_as_null=True)),
    Column("created_at", _TIME, nullable=False),
)

web_files = Table(
    "web_files",
    metadata,
    Column("dataset_id", _ID, ForeignKey("datasets.id"), primary_key=True),
    Column("path", _ORDERED, primary_key=True),
    Column("url_id", _ID, nullable=False, index=True),
    Column("url", Text, nullable=False),
    Column("sha256", _DIGEST),
    Column("size", BigInteger),
    Column("final_url", Text),
    Column("etag", Text),
    Column("instead", Text),
    Column("read_at", _TIME),
)

names = Table(
    "names",
    metadata,
    Column("name", _ORDERED, primary_key=True),
    # Counts on after an unregistration: a version number never means two things.
    Column("last_version", Integer, nullable=False),
)

versions = Table(
    "versions",
    metadata,
    Column("name", _ORDERED, primary_key=True),
    Column("version", Integer, primary_key=True),
    Column("dataset_id", _ID, ForeignKey("datasets.id"), nullable=False, index=True),
    Column("description", Text),
    Column("tags", JSON, nullable=False),
    Column("created_at", _TIME, nullable=False),
)

datastore_files = Table(
    "datastore_files",
    metadata,
    Column("datastore", _ORDERED, primary_key=True),
    Column("path", _ORDERED, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("sha256", _DIGEST, nullable=False),
    Column("executable", Boolean, nullable=False),
)

# Runs that wait for web files, the datasets they wait for, and the reads under way.
waits = Table(
    "waits",
    metadata,
    Column("run_id", String(40), primary_key=True),
    Column("inputs", JSON, nullable=False),
    Column("event_id", Text, nullable=False),
)
waited_datasets = Table(
    "waited_datasets",
    metadata,
    Column("run_id", String(40), ForeignKey("waits.run_id"), primary_key=True),
    Column("dataset_id", _ID, ForeignKey("datasets.id"), primary_key=True, index=True),
)
fetches = Table(
    "fetches",
    metadata,
    Column("url_id", _ID, primary_key=True),
    Column("url", Text, nullable=False),
)


def aware(time: datetime) -> datetime:
    """``time`` in UTC: SQLite gives back what is stored without its zone."""
    return time if time.tzinfo else time.replace(tzinfo=UTC)
