"""Datasets, their registered versions and datastores: the SQL behind the verbs.

Each method is one transaction named after its intent. What waits for web files is in
``waiting.py``.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import delete, func, select, update
from sqlalchemy.engine import Connection

from stellwerk.api import DatasetPatch, DatasetRegisterRequest, DatasetView, Page
from stellwerk.manifest import ManifestEntry
from stellwerk_dataset.domain import Dataset, PathPattern, WebFile, patched_tags
from stellwerk_dataset.reads import (
    check_datastore,
    entry_of,
    get_dataset,
    get_version,
    load_web_files,
    stored,
    version_page,
    view,
)
from stellwerk_dataset.tables import datastore_files, versions
from stellwerk_dataset.writes import keep_dataset, put_files, register_version
from stellwerk_kit.db import Database, Tx


class DatasetStore:
    """Transactions on datasets, versions and datastores."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, dataset: Dataset, web: Sequence[WebFile] = ()) -> DatasetView:
        """Keep a dataset; the same definition again changes nothing."""
        return await self._db.write(lambda tx: keep_dataset(tx, dataset, web))

    async def register(self, dataset_id: str, request: DatasetRegisterRequest) -> DatasetView:
        """Give a dataset a name and the next version, unless its latest has the same content."""
        return await self._db.write(
            lambda tx: register_version(tx, get_dataset(tx.conn, dataset_id), request)
        )

    async def patch(self, name: str, version: int, patch: DatasetPatch) -> DatasetView:
        """Change description and tags of one registered version."""

        def work(tx: Tx) -> DatasetView:
            found = get_version(tx.conn, name, version)
            changed: dict[str, Any] = {"tags": patched_tags(patch, found.tags)}
            if patch.description is not None:
                changed["description"] = patch.description
            here = (versions.c.name == name) & (versions.c.version == version)
            tx.conn.execute(update(versions).where(here).values(**changed))
            return view(tx.conn, found.dataset_id, get_version(tx.conn, name, version))

        return await self._db.write(work)

    async def get(
        self, dataset_id: str | None, name: str | None, version: int | None
    ) -> DatasetView:
        """A dataset by id, or by name and version (None: the latest)."""

        def work(conn: Connection) -> DatasetView:
            if name is None:
                return view(conn, get_dataset(conn, dataset_id or "").id)
            found = get_version(conn, name, version)
            return view(conn, found.dataset_id, found)

        return await self._db.read(work)

    async def list_latest(self, limit: int, cursor: str | None) -> Page[DatasetView]:
        """The latest version of each name, by name."""
        newest = (
            select(versions.c.name, func.max(versions.c.version).label("version"))
            .where(versions.c.name > (cursor or ""))
            .group_by(versions.c.name)
            .order_by(versions.c.name)
            .limit(limit + 1)
            .subquery()
        )
        same = (versions.c.name == newest.c.name) & (versions.c.version == newest.c.version)
        query = select(versions).join(newest, same).order_by(versions.c.name)
        return await self._db.read(lambda conn: version_page(conn, query, limit, "name"))

    async def list_versions(self, name: str, limit: int, cursor: str | None) -> Page[DatasetView]:
        """All versions of one name, the latest first."""
        below = int(cursor) if cursor and cursor.isdecimal() and len(cursor) < 10 else 2**31 - 1
        query = (
            select(versions)
            .where(versions.c.name == name, versions.c.version < below)
            .order_by(versions.c.version.desc())
        )
        return await self._db.read(lambda conn: version_page(conn, query, limit, "version"))

    async def unregister(self, name: str) -> int:
        """Take a name away from all its versions; returns how many. Data and runs stay."""

        def work(tx: Tx) -> int:
            get_version(tx.conn, name, None)
            return tx.conn.execute(delete(versions).where(versions.c.name == name)).rowcount

        return await self._db.write(work)

    async def dataset(self, dataset_id: str) -> Dataset:
        """The dataset; raises NotFoundError."""
        return await self._db.read(lambda conn: get_dataset(conn, dataset_id))

    async def web_files(self, dataset_id: str) -> list[WebFile]:
        """Web files of a dataset, by path."""
        return await self._db.read(lambda conn: load_web_files(conn, dataset_id))

    async def upload(
        self, datastore: str, entries: Sequence[ManifestEntry], *, overwrite: bool
    ) -> tuple[int, int]:
        """Give blobs paths in a datastore; returns how many were stored and how many unchanged."""
        return await self._db.write(
            lambda tx: put_files(tx, datastore, entries, overwrite=overwrite)
        )

    async def datastore_page(
        self, datastore: str, prefix: str, limit: int, cursor: str | None
    ) -> list[ManifestEntry]:
        """Up to ``limit`` files of a datastore after path ``cursor``, by path."""
        query = stored(datastore, prefix).limit(limit)
        if cursor:
            query = query.where(datastore_files.c.path > cursor)

        def work(conn: Connection) -> list[ManifestEntry]:
            check_datastore(conn, datastore)
            return [entry_of(row) for row in conn.execute(query)]

        return await self._db.read(work)

    async def look_up(
        self, patterns: Sequence[PathPattern]
    ) -> list[tuple[PathPattern, list[ManifestEntry]]]:
        """What lies under each pattern's prefix, all at one moment."""

        def work(conn: Connection) -> list[tuple[PathPattern, list[ManifestEntry]]]:
            found = []
            for pattern in patterns:
                check_datastore(conn, pattern.datastore)
                rows = conn.execute(stored(pattern.datastore, pattern.prefix))
                found.append((pattern, [entry_of(row) for row in rows]))
            return found

        return await self._db.read(work)
