"""Where SQLite and PostgreSQL differ: opening them, excluding other writers, words of their own.

Both give a service the same: one writer at a time, readers that see one moment, whole numbers of
64 bits, times in UTC, byte order where a column asks for it (its collation "C").
"""

import sqlite3
import threading
from typing import Any

from sqlalchemy import BigInteger, Engine, Insert, Integer, Table, create_engine, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.engine.url import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.ext.compiler import compiles

WRITER = "db-write"
"""Name of the thread that writes."""
WRITERS_LOCK = 0x5357_5752
"""Advisory lock of PostgreSQL that a writer holds during its transaction."""
_FLUSH = {True: "FULL", False: "NORMAL"}
"""SQLite's words for commits that wait for the disk, and for those that do not."""
_SECRETS = {"sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key"}
"""Parameters of libpq, beside the password, that nobody but the service may read."""
_NOTICED = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "20000",
}
"""A server that vanished is noticed in some 25 s, not when TCP gives up after many minutes: until
then it holds up the one writer. Seconds, the last milliseconds; a URL may say otherwise."""
_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
}
"""SQLite's trouble with the machine and with other writers."""
_PASSING_CLASSES = {"08", "53", "57"}
"""PostgreSQL's: the connection, no room or connections left, ended by its operator."""
COUNTED = BigInteger().with_variant(Integer(), "sqlite")
"""Type of a key that the database counts up: SQLite does so for its ``INTEGER`` only."""


@compiles(Integer, "postgresql")
def _whole_number(_type: Integer, _compiler: Any, **_options: Any) -> str:
    """SQLite's whole numbers have 64 bits; so have PostgreSQL's here, columns and values."""
    return "BIGINT"


def checked_url(text: str) -> str:
    """``text`` if it can be a store. Raises ValueError."""
    try:
        url = make_url(text)
    except ArgumentError as error:
        raise ValueError("is no URL; wanted: postgresql://user@host/{service}") from error
    if url.get_backend_name() not in {"sqlite", "postgresql"}:
        raise ValueError(f"names {url.get_backend_name()!r}; a store is sqlite:// or postgresql://")
    if url.drivername != url.get_backend_name():
        raise ValueError(
            f"names the driver {url.drivername!r}; the driver is not yours to choose: "
            f"write {url.get_backend_name()}://"
        )
    if url.password is not None or "password" in url.query:
        raise ValueError(
            "holds a password, which others could read; keep it in a file of libpq's format (0600) "
            "and write postgresql://user@host/{service}?passfile=/that/file"
        )
    if secret := sorted(_SECRETS & set(url.query)):
        raise ValueError(
            f"holds a secret, {secret[0]!r}, which others could read; leave it out: what proves "
            "who the service is lies in files (0600), as passfile=/file or sslkey=/unlocked-key"
        )
    return text


def insert_once(table: Table, dialect: str) -> Insert:
    """Add a row unless one with its key is there."""
    if dialect == "postgresql":
        return postgresql.insert(table).on_conflict_do_nothing()
    return sqlite.insert(table).on_conflict_do_nothing()


def say(conn: Connection, text: str) -> None:
    """Run a word of transactions: past Core on SQLite, where Core costs more than the word."""
    if conn.dialect.name == "sqlite":
        conn.connection.cursor().execute(text)
    else:
        conn.exec_driver_sql(text)


def open_engine(url: str) -> Engine:
    """The engine of a store. Raises RuntimeError where PostgreSQL's driver is missing."""
    if make_url(url).get_backend_name() == "postgresql":
        return _postgresql(url)
    engine = create_engine(url)

    # The driver's own transaction control would commit behind our back (SQLAlchemy docs,
    # "Serializable isolation / Savepoints / Transactional DDL" of the pysqlite dialect).
    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={_FLUSH[True]}")
        connection.execute("PRAGMA busy_timeout=10000")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        run = conn.connection.cursor().execute
        if not _writing():
            run("BEGIN")
            return
        lasting = _lasting(conn)
        if conn.info.get("flushes", True) != lasting:
            conn.info["flushes"] = lasting
            run(f"PRAGMA synchronous={_FLUSH[lasting]}")
        run("BEGIN IMMEDIATE")

    return engine


def _postgresql(url: str) -> Engine:
    try:
        from psycopg.adapt import Loader  # noqa: PLC0415 - an optional dependency

        engine = create_engine(_noticing(make_url(url)), isolation_level="REPEATABLE READ")
    except ModuleNotFoundError as error:
        raise RuntimeError(
            f"STELLWERK_DATABASE_URL names PostgreSQL, whose driver {error.name!r} is not "
            "installed: pip install 'stellwerk-kit[postgresql]'"
        ) from error

    class _Whole(Loader):
        """Sums of whole numbers are NUMERIC there; no column is."""

        def load(self, data: Any) -> int:
            return int(bytes(data))

    @event.listens_for(engine, "connect")
    def _connect(connection: Any, _record: Any) -> None:
        connection.adapters.register_loader("numeric", _Whole)
        with connection.cursor() as cursor:
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    @event.listens_for(engine, "begin")
    def _begin(conn: Connection) -> None:
        if _writing():  # waits for another writer and sees then what that one has committed
            conn.exec_driver_sql(
                "SET TRANSACTION ISOLATION LEVEL READ COMMITTED; "
                f"SELECT pg_advisory_xact_lock({WRITERS_LOCK})"
            )
            if not _lasting(conn):
                conn.exec_driver_sql("SET LOCAL synchronous_commit TO off")

    return engine


def _noticing(url: URL) -> URL:
    return url.update_query_dict({k: v for k, v in _NOTICED.items() if k not in url.query})


def passes(error: DBAPIError) -> bool:
    """Whether the store may do later what it did not do now: it was full, busy or away.

    Anything else is a fault that comes again as often as it is tried.
    """
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        return code & 0xFF in _PASSING
    if not isinstance(error, OperationalError):
        return False
    state = getattr(error.orig, "sqlstate", None)  # none: no server answered
    return state is None or state[:2] in _PASSING_CLASSES


def make_lasting(conn: Connection, *, lasting: bool) -> None:
    """Say whether the next transaction's commit waits for the disk.

    One that does not is whole all the same, survives the death of this process, and lies before
    the next one that does; a power failure may undo it.
    """
    conn.info["lasting"] = lasting


def _lasting(conn: Connection) -> bool:
    return bool(conn.info.get("lasting", True))


def _writing() -> bool:
    return threading.current_thread().name == WRITER
