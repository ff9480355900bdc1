"""Reading datasets, versions and datastores inside a transaction: the SQL both sides share."""

from typing import Any

from sqlalchemy import Row, select
from sqlalchemy.engine import Connection

from stellwerk.api import DatasetView, Page
from stellwerk.errors import NotFoundError
from stellwerk.manifest import ManifestEntry
from stellwerk_dataset.domain import BUILT_IN_DATASTORES, Dataset, WebFile, near_names
from stellwerk_dataset.tables import aware, datasets, datastore_files, versions, web_files

MAX_NAMES_COMPARED = 10_000


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
        tabular=data.definition,
        created_at=aware(registered.created_at if registered else data.created_at),
    )


def version_page(conn: Connection, query: Any, limit: int, key: str) -> Page[DatasetView]:
    """A page of registered versions; ``key`` is the column that continues it."""
    rows = conn.execute(query.limit(limit + 1)).all()
    items = tuple(view(conn, row.dataset_id, row) for row in rows[:limit])
    after = str(getattr(rows[limit - 1], key)) if len(rows) > limit else None
    return Page[DatasetView](items=items, next_cursor=after)


def check_datastore(conn: Connection, datastore: str) -> None:
    """Raise NotFoundError for a datastore that has no file."""
    column = datastore_files.c.datastore
    if datastore in BUILT_IN_DATASTORES:
        return
    if conn.execute(select(column).where(column == datastore).limit(1)).first() is None:
        known = conn.scalars(select(column).distinct().limit(MAX_NAMES_COMPARED)).all()
        raise NotFoundError(
            f"there is no datastore {datastore!r}; a datastore begins with "
            f"the first file uploaded to it{near_names(datastore, known)}",
            code="datastore.not_found",
            field="datastore",
        )


def stored(datastore: str, prefix: str) -> Any:
    """The query for the files of a datastore that begin with ``prefix``, by path."""
    path = datastore_files.c.path
    query = select(datastore_files).where(datastore_files.c.datastore == datastore).order_by(path)
    if prefix:
        # Everything that begins with the prefix: no character sorts after the last one.
        query = query.where(path >= prefix, path < prefix + "\U0010ffff")
    return query


def entry_of(row: Row[Any]) -> ManifestEntry:
    """A datastore's row as an entry."""
    return ManifestEntry(path=row.path, size=row.size, sha256=row.sha256, executable=row.executable)
