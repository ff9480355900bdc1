"""Changing datasets, versions and datastores inside a transaction."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.api import DatasetRegisterRequest, DatasetView
from stellwerk.errors import ConflictError
from stellwerk.events import DatasetRegistered
from stellwerk.ids import derived_id
from stellwerk.manifest import ManifestEntry
from stellwerk_dataset.domain import Dataset, WebFile
from stellwerk_dataset.reads import find_dataset, get_dataset, get_version, latest_version, view
from stellwerk_dataset.tables import datasets, datastore_files, names, versions, web_files
from stellwerk_kit.db import Tx

T = TypeVar("T")
CHUNK = 500


def keep_dataset(tx: Tx, dataset: Dataset, web: Sequence[WebFile] = ()) -> DatasetView:
    """Keep a dataset; the same definition again changes nothing."""
    known = find_dataset(tx.conn, dataset.id)
    if known is None:
        tx.conn.execute(insert(datasets).values(created_at=tx.now, **_columns(dataset)))
        rows = [
            {
                "dataset_id": dataset.id,
                "path": file.path,
                "url": file.url,
                "url_id": derived_id("url", file.url),
                "sha256": file.sha256,
                "size": file.size,
                "instead": file.instead,
            }
            for file in web
        ]
        if rows:
            tx.conn.execute(insert(web_files), rows)
    return view(tx.conn, dataset.id).model_copy(update={"created": known is None})


def register_version(tx: Tx, dataset: Dataset, request: DatasetRegisterRequest) -> DatasetView:
    """Give a dataset a name and the next version, unless its latest has the same content.

    That one then takes the tags and the description that are given.
    """
    latest = latest_version(tx.conn, request.name)
    if latest is not None:
        current = get_dataset(tx.conn, latest.dataset_id)
        if dataset.same_content(current):
            _relabel(tx, latest, request)
            kept = view(tx.conn, current.id, get_version(tx.conn, request.name, latest.version))
            return kept.model_copy(update={"created": False})
        if not request.create_new_version:
            raise ConflictError(
                f"dataset name {request.name!r} is registered (version {latest.version}) "
                "with other content; pass create_new_version=True (--new-version on the "
                "command line) to add a version, or choose another name",
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


def _relabel(tx: Tx, version: Any, request: DatasetRegisterRequest) -> None:
    changed: dict[str, Any] = {}
    if request.tags:
        changed["tags"] = {**version.tags, **request.tags}
    if request.description is not None:
        changed["description"] = request.description
    if changed:
        here = (versions.c.name == request.name) & (versions.c.version == version.version)
        tx.conn.execute(update(versions).where(here).values(**changed))


def put_files(
    tx: Tx, datastore: str, entries: Sequence[ManifestEntry], *, overwrite: bool
) -> tuple[int, int]:
    """Give blobs paths in a datastore; returns how many were stored and how many unchanged."""
    table = datastore_files
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


def _next_version(conn: Connection, name: str) -> int:
    row = conn.execute(select(names).where(names.c.name == name)).first()
    if row is None:
        conn.execute(insert(names).values(name=name, last_version=1))
        return 1
    version = int(row.last_version) + 1
    conn.execute(update(names).where(names.c.name == name).values(last_version=version))
    return version


def _columns(dataset: Dataset) -> dict[str, Any]:
    return {name: getattr(dataset, name) for name in Dataset.__dataclass_fields__}


def _chunks(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(islice(iterator, CHUNK)):
        yield chunk
