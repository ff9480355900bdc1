"""Datasets, their registered versions and datastores: the SQL behind the verbs.

Each method is one transaction named after its intent. What waits for web files is in
``waiting.py``.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.api import DatasetRegisterRequest, DatasetView, Page
from stellwerk.errors import ConflictError, NotFoundError
from stellwerk.events import DatasetRegistered
from stellwerk.ids import derived_id
from stellwerk.manifest import ManifestEntry
from stellwerk_dataset.domain import DEFAULT_DATASTORE, Dataset, PathPattern, WebFile, near_names
from stellwerk_dataset.tables import aware, datasets, datastore_files, names, versions, web_files
from stellwerk_kit.db import Database, Tx

T = TypeVar("T")
CHUNK = 500
MAX_NAMES_COMPARED = 10_000


class DatasetStore:
    """Transactions on datasets, versions and datastores."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, dataset: Dataset, web: Sequence[WebFile] = ()) -> DatasetView:
        """Keep a dataset; the same definition again changes nothing."""

        def work(tx: Tx) -> DatasetView:
            known = find_dataset(tx.conn, dataset.id)
            if known is None:
                tx.conn.execute(insert(datasets).values(created_at=tx.now, **_columns(dataset)))
                rows = [
                    {
                        "dataset_id": dataset.id,
                        "path": file.path,
                        "url": file.url,
                        "url_id": derived_id("url", file.url),
                    }
                    for file in web
                ]
                if rows:
                    tx.conn.execute(insert(web_files), rows)
            return view(tx.conn, dataset.id).model_copy(update={"created": known is None})

        return await self._db.write(work)

    async def register(self, dataset_id: str, request: DatasetRegisterRequest) -> DatasetView:
        """Give a dataset a name and the next version, unless its latest has the same content."""

        def work(tx: Tx) -> DatasetView:
            dataset = get_dataset(tx.conn, dataset_id)
            latest = latest_version(tx.conn, request.name)
            if latest is not None:
                current = get_dataset(tx.conn, latest.dataset_id)
                if dataset.same_content(current):
                    kept = view(tx.conn, current.id, latest)
                    return kept.model_copy(update={"created": False})
                if not request.create_new_version:
                    raise ConflictError(
                        f"dataset name {request.name!r} is registered (version {latest.version}) "
                        "with other content; pass create_new_version=True to add a version, or "
                        "choose another name",
                        code="dataset.exists",
                        field="name",
                    )
            version = _next_version(tx.conn, request.name)
            tx.conn.execute(
                insert(versions).values(
                    name=request.name,
                    version=version,
                    dataset_id=dataset.id,
                    description=request.description,
                    tags=request.tags,
                    created_at=tx.now,
                )
            )
            tx.emit(
                DatasetRegistered(
                    dataset_id=dataset.id,
                    name=request.name,
                    version=version,
                    files=dataset.files,
                    bytes=dataset.bytes,
                )
            )
            return view(tx.conn, dataset.id, get_version(tx.conn, request.name, version))

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
        return await self._db.read(lambda conn: _version_page(conn, query, limit, "name"))

    async def list_versions(self, name: str, limit: int, cursor: str | None) -> Page[DatasetView]:
        """All versions of one name, the latest first."""
        below = int(cursor) if cursor and cursor.isdecimal() and len(cursor) < 10 else 2**31 - 1
        query = (
            select(versions)
            .where(versions.c.name == name, versions.c.version < below)
            .order_by(versions.c.version.desc())
        )
        return await self._db.read(lambda conn: _version_page(conn, query, limit, "version"))

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
        table = datastore_files

        def work(tx: Tx) -> tuple[int, int]:
            known: dict[str, str] = {}
            for chunk in _chunks([entry.path for entry in entries]):
                query = select(table.c.path, table.c.sha256).where(
                    table.c.datastore == datastore, table.c.path.in_(chunk)
                )
                known.update((row.path, row.sha256) for row in tx.conn.execute(query))
            changed = [entry for entry in entries if known.get(entry.path) != entry.sha256]
            replaced = [entry.path for entry in changed if entry.path in known]
            if replaced and not overwrite:
                more = f" and at {len(replaced) - 1} more paths" if len(replaced) > 1 else ""
                raise ConflictError(
                    f"datastore {datastore!r} has other content at {replaced[0]!r}{more}; "
                    "pass overwrite=True to replace it, or choose another path",
                    code="datastore.path_exists",
                    field="entries",
                )
            for chunk in _chunks(replaced):
                tx.conn.execute(
                    delete(table).where(table.c.datastore == datastore, table.c.path.in_(chunk))
                )
            rows = [{"datastore": datastore, **entry.model_dump()} for entry in changed]
            if rows:
                tx.conn.execute(insert(table), rows)
            return len(changed), len(entries) - len(changed)

        return await self._db.write(work)

    async def datastore_page(
        self, datastore: str, prefix: str, limit: int, cursor: str | None
    ) -> list[ManifestEntry]:
        """Up to ``limit`` files of a datastore after path ``cursor``, by path."""
        query = _stored(datastore, prefix).limit(limit)
        if cursor:
            query = query.where(datastore_files.c.path > cursor)

        def work(conn: Connection) -> list[ManifestEntry]:
            _check_datastore(conn, datastore)
            return [_entry(row) for row in conn.execute(query)]

        return await self._db.read(work)

    async def look_up(
        self, patterns: Sequence[PathPattern]
    ) -> list[tuple[PathPattern, list[ManifestEntry]]]:
        """What lies under each pattern's prefix, all at one moment."""

        def work(conn: Connection) -> list[tuple[PathPattern, list[ManifestEntry]]]:
            found = []
            for pattern in patterns:
                _check_datastore(conn, pattern.datastore)
                rows = conn.execute(_stored(pattern.datastore, pattern.prefix))
                found.append((pattern, [_entry(row) for row in rows]))
            return found

        return await self._db.read(work)


def get_dataset(conn: Connection, dataset_id: str) -> Dataset:
    """The dataset; raises NotFoundError."""
    found = find_dataset(conn, dataset_id)
    if found is None:
        raise NotFoundError(
            f"there is no dataset with id {dataset_id[:40]!r}; dataset ids come from creating one",
            code="dataset.not_found",
            field="dataset_id",
        )
    return found


def find_dataset(conn: Connection, dataset_id: str) -> Dataset | None:
    """The dataset, if it is there."""
    row = conn.execute(select(datasets).where(datasets.c.id == dataset_id)).first()
    if row is None:
        return None
    values = dict(row._mapping)  # noqa: SLF001 - SQLAlchemy's public name for it
    del values["created_at"]
    return Dataset(**values)


def get_version(conn: Connection, name: str, version: int | None) -> Row[Any]:
    """A registered version (None: the latest); raises NotFoundError naming near matches."""
    latest = latest_version(conn, name)
    if latest is None:
        known = conn.scalars(select(versions.c.name).distinct().limit(MAX_NAMES_COMPARED)).all()
        raise NotFoundError(
            f"there is no dataset registered as {name[:255]!r}{near_names(name, known)}",
            code="dataset.not_found",
            field="name",
        )
    if version is None or version == latest.version:
        return latest
    query = select(versions).where(versions.c.name == name, versions.c.version == version)
    found = conn.execute(query).first()
    if found is None:
        raise NotFoundError(
            f"dataset {name!r} has no version {version}; the latest is {latest.version}",
            code="dataset.version_not_found",
            field="version",
        )
    return found


def latest_version(conn: Connection, name: str) -> Row[Any] | None:
    """The latest version of a name, None if nothing has the name."""
    query = select(versions).where(versions.c.name == name).order_by(versions.c.version.desc())
    return conn.execute(query.limit(1)).first()


def load_web_files(conn: Connection, dataset_id: str) -> list[WebFile]:
    """Web files of a dataset, by path."""
    query = select(web_files).where(web_files.c.dataset_id == dataset_id).order_by(web_files.c.path)
    return [
        WebFile(row.path, row.url, row.sha256, row.size, row.instead) for row in conn.execute(query)
    ]


def view(conn: Connection, dataset_id: str, registered: Row[Any] | None = None) -> DatasetView:
    """A dataset as users see it, as itself or as one registered version of a name."""
    data = conn.execute(select(datasets).where(datasets.c.id == dataset_id)).one()
    return DatasetView(
        dataset_id=data.id,
        name=registered.name if registered else None,
        version=registered.version if registered else None,
        description=registered.description if registered else None,
        tags=registered.tags if registered else {},
        files=data.files,
        bytes=data.bytes,
        source=data.source,
        created_at=aware(registered.created_at if registered else data.created_at),
    )


def _next_version(conn: Connection, name: str) -> int:
    row = conn.execute(select(names).where(names.c.name == name)).first()
    if row is None:
        conn.execute(insert(names).values(name=name, last_version=1))
        return 1
    version = int(row.last_version) + 1
    conn.execute(update(names).where(names.c.name == name).values(last_version=version))
    return version


def _version_page(conn: Connection, query: Any, limit: int, key: str) -> Page[DatasetView]:
    rows = conn.execute(query.limit(limit + 1)).all()
    items = tuple(view(conn, row.dataset_id, row) for row in rows[:limit])
    after = str(getattr(rows[limit - 1], key)) if len(rows) > limit else None
    return Page[DatasetView](items=items, next_cursor=after)


def _check_datastore(conn: Connection, datastore: str) -> None:
    column = datastore_files.c.datastore
    if datastore == DEFAULT_DATASTORE:
        return
    if conn.execute(select(column).where(column == datastore).limit(1)).first() is None:
        known = conn.scalars(select(column).distinct().limit(MAX_NAMES_COMPARED)).all()
        raise NotFoundError(
            f"there is no datastore {datastore!r}; a datastore begins with "
            f"the first file uploaded to it{near_names(datastore, known)}",
            code="datastore.not_found",
            field="datastore",
        )


def _stored(datastore: str, prefix: str) -> Any:
    path = datastore_files.c.path
    query = select(datastore_files).where(datastore_files.c.datastore == datastore).order_by(path)
    if prefix:
        # Everything that begins with the prefix: no character sorts after the last one.
        query = query.where(path >= prefix, path < prefix + "\U0010ffff")
    return query


def _entry(row: Row[Any]) -> ManifestEntry:
    return ManifestEntry(path=row.path, size=row.size, sha256=row.sha256, executable=row.executable)


def _columns(dataset: Dataset) -> dict[str, Any]:
    return {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
