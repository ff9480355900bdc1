"""Runs that wait for their inputs, and the web files being read for them: the SQL behind both.

A row in ``fetches`` is a web address that somebody waits for; it outlives a restart. A row in
``waits`` is a run whose answer (DatasetReady or DatasetFailed) is still owed.
"""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.errors import UserError
from stellwerk.events import DatasetFailed, DatasetReady, Envelope, ResolvedInput, RunPreparing
from stellwerk.ids import derived_id
from stellwerk.manifest import Manifest
from stellwerk.runspec import DatasetInput
from stellwerk_dataset.domain import Dataset, elsewhere, web_manifest
from stellwerk_dataset.egress import Fetched
from stellwerk_dataset.reads import find_dataset, get_dataset, get_version, load_web_files
from stellwerk_dataset.tables import datasets, fetches, waited_datasets, waits, web_files
from stellwerk_kit.db import Database, Tx

CONSUMER = "dataset-runs"


@dataclass(frozen=True, slots=True)
class Blob:
    """Content in the object store; ``size`` in bytes."""

    sha256: str
    size: int


class WaitingStore:
    """Transactions on waiting runs and pending reads."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def prepare(self, envelope: Envelope, preparing: RunPreparing) -> bool:
        """Answer a run's need for inputs, or let it wait for web files.

        Returns whether there is something to fetch.
        """
        if not preparing.inputs:
            return False

        def work(tx: Tx) -> bool:
            if not tx.first_time(CONSUMER, envelope.id):
                return False
            resolved: dict[str, ResolvedInput] = {}
            unread: list[Dataset] = []
            for name, wanted in preparing.inputs.items():
                try:
                    dataset, resolved[name] = _resolve(tx.conn, wanted)
                except UserError as error:
                    _fail(tx, preparing.run_id, name, error, envelope.id)
                    return False
                if dataset.manifest is None:
                    unread.append(dataset)
            if not unread:
                _ready(tx, preparing.run_id, resolved, envelope.id)
                return False
            _remember(tx.conn, preparing.run_id, envelope.id, resolved, unread)
            return True

        return await self._db.write(work)

    async def want(self, dataset_id: str) -> list[str]:
        """Ask for a dataset's unread web files; returns their addresses."""

        def work(tx: Tx) -> list[str]:
            if get_dataset(tx.conn, dataset_id).manifest is not None:
                return []
            return _want(tx.conn, dataset_id)

        return await self._db.write(work)

    async def pending(self) -> list[str]:
        """Web addresses that somebody waits for."""
        return await self._db.read(lambda conn: list(conn.scalars(select(fetches.c.url))))

    async def is_pending(self, url: str) -> bool:
        """Whether somebody waits for ``url``."""
        query = select(fetches.c.url_id).where(fetches.c.url_id == _key(url))
        return await self._db.read(lambda conn: conn.execute(query).first() is not None)

    async def is_unread(self, url: str) -> bool:
        """Whether a dataset has ``url`` without content."""
        query = select(web_files.c.path).where(_unread(url)).limit(1)
        return await self._db.read(lambda conn: conn.execute(query).first() is not None)

    async def pin(self, url: str, blob: Blob, fetched: Fetched) -> None:
        """Record what ``url`` holds in every dataset that names it and has not been read."""

        def work(tx: Tx) -> None:
            tx.conn.execute(
                update(web_files)
                .where(_unread(url))
                .values(
                    sha256=blob.sha256,
                    size=blob.size,
                    final_url=fetched.final_url,
                    etag=fetched.etag,
                    instead=fetched.instead,
                    read_at=tx.now,
                )
            )

        await self._db.write(work)

    async def complete(self, url: str) -> dict[str, Manifest]:
        """Manifests of the datasets with ``url`` whose files are all read, by dataset id."""
        query = (
            select(datasets.c.id)
            .join(web_files, web_files.c.dataset_id == datasets.c.id)
            .where(web_files.c.url_id == _key(url), datasets.c.manifest.is_(None))
        )

        def work(conn: Connection) -> dict[str, Manifest]:
            found: dict[str, Manifest] = {}
            for dataset_id in conn.scalars(query).all():
                manifest = web_manifest(load_web_files(conn, dataset_id))
                if manifest is not None:
                    found[dataset_id] = manifest
            return found

        return await self._db.read(work)

    async def finish(self, url: str, stored: dict[str, Manifest]) -> None:
        """Seal datasets whose manifests are ``stored`` and answer the runs that now have all.

        The address stays pending if a run began to wait for it after it was pinned.
        """

        def work(tx: Tx) -> None:
            for dataset_id, manifest in stored.items():
                tx.conn.execute(
                    update(datasets)
                    .where(datasets.c.id == dataset_id)
                    .values(manifest=manifest.digest(), bytes=manifest.size)
                )
            for run_id in _runs_waiting_for(tx.conn, list(stored)):
                _answer_if_ready(tx, run_id)
            waiting = select(waited_datasets.c.run_id).where(
                waited_datasets.c.dataset_id == web_files.c.dataset_id, _unread(url)
            )
            still = tx.conn.execute(select(waiting.exists())).scalar_one()
            if not still:
                tx.conn.execute(delete(fetches).where(fetches.c.url_id == _key(url)))

        await self._db.write(work)

    async def fail(self, url: str, error: UserError) -> None:
        """Give ``url`` up and answer the runs that wait for it."""

        def work(tx: Tx) -> None:
            query = select(web_files.c.dataset_id).where(_unread(url))
            failed = set(tx.conn.scalars(query))
            for run_id in _runs_waiting_for(tx.conn, list(failed)):
                row = tx.conn.execute(select(waits).where(waits.c.run_id == run_id)).one()
                name = next(
                    name for name, value in row.inputs.items() if value["dataset_id"] in failed
                )
                _fail(tx, run_id, name, error, row.event_id)
                _forget(tx.conn, run_id)
            tx.conn.execute(delete(fetches).where(fetches.c.url_id == _key(url)))

        await self._db.write(work)


def _resolve(conn: Connection, wanted: DatasetInput) -> tuple[Dataset, ResolvedInput]:
    dataset = find_dataset(conn, wanted.dataset) if wanted.version is None else None
    name, version = None, None
    if dataset is None:
        found = get_version(conn, wanted.dataset, wanted.version)
        name, version = found.name, found.version
        dataset = get_dataset(conn, found.dataset_id)
    if dataset.definition is not None and wanted.mode != "direct":
        raise UserError(
            f"a table cannot be given in mode {wanted.mode}; use direct, and read it with "
            "to_pandas_dataframe()",
            code="input.mode",
        )
    return dataset, ResolvedInput(
        dataset_id=dataset.id,
        name=name,
        version=version,
        mode=wanted.mode,
        path=wanted.path,
        manifest=dataset.manifest or "",
        files=dataset.files,
        bytes=dataset.bytes or 0,
        single_file=dataset.single_file,
    )


def _remember(
    conn: Connection,
    run_id: str,
    event_id: str,
    resolved: dict[str, ResolvedInput],
    unread: list[Dataset],
) -> None:
    inputs = {name: value.model_dump() for name, value in resolved.items()}
    conn.execute(insert(waits).values(run_id=run_id, inputs=inputs, event_id=event_id))
    for dataset_id in dict.fromkeys(dataset.id for dataset in unread):
        conn.execute(insert(waited_datasets).values(run_id=run_id, dataset_id=dataset_id))
        _want(conn, dataset_id)


def _want(conn: Connection, dataset_id: str) -> list[str]:
    """Make a dataset's unread addresses pending; returns those of it that are pending now."""
    files = load_web_files(conn, dataset_id)
    keys = {_key(file.url): file for file in files}
    pending = set(conn.scalars(select(fetches.c.url_id).where(fetches.c.url_id.in_(keys))))
    new = [key for key, file in keys.items() if file.sha256 is None and key not in pending]
    if new:
        conn.execute(insert(fetches), [{"url_id": key, "url": keys[key].url} for key in new])
    return [keys[key].url for key in [*pending, *new]]


def _runs_waiting_for(conn: Connection, dataset_ids: list[str]) -> list[str]:
    query = select(waited_datasets.c.run_id).where(waited_datasets.c.dataset_id.in_(dataset_ids))
    return sorted(set(conn.scalars(query)))


def _answer_if_ready(tx: Tx, run_id: str) -> None:
    row = tx.conn.execute(select(waits).where(waits.c.run_id == run_id)).one()
    inputs: dict[str, ResolvedInput] = {}
    for name, value in row.inputs.items():
        dataset = get_dataset(tx.conn, value["dataset_id"])
        if dataset.manifest is None:
            return
        sealed = {"manifest": dataset.manifest, "bytes": dataset.bytes}
        inputs[name] = ResolvedInput.model_validate(value | sealed)
    _ready(tx, run_id, inputs, row.event_id)
    _forget(tx.conn, run_id)


def _ready(tx: Tx, run_id: str, inputs: dict[str, ResolvedInput], event_id: str) -> None:
    """Answer a run; it is warned of what was read from elsewhere than its dataset says."""
    warnings = [
        f"input {name!r}: {text}"
        for name, value in inputs.items()
        for text in elsewhere(load_web_files(tx.conn, value.dataset_id))
    ]
    tx.emit(
        DatasetReady(run_id=run_id, inputs=inputs, warnings=tuple(warnings)), causation_id=event_id
    )


def _fail(tx: Tx, run_id: str, name: str, error: UserError, event_id: str) -> None:
    tx.emit(
        DatasetFailed(
            run_id=run_id,
            input=name,
            code=error.code,
            message=f"input {name!r}: {error.message}",
        ),
        causation_id=event_id,
    )


def _forget(conn: Connection, run_id: str) -> None:
    conn.execute(delete(waited_datasets).where(waited_datasets.c.run_id == run_id))
    conn.execute(delete(waits).where(waits.c.run_id == run_id))


def _unread(url: str) -> Any:
    return (web_files.c.url_id == _key(url)) & web_files.c.sha256.is_(None)


def _key(url: str) -> str:
    return derived_id("url", url)
