"""Models, and what is known of ended runs: the only SQL of the service.

Each method is one transaction named after its intent.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Row, and_, delete, insert, or_, select, update
from sqlalchemy.engine import Connection

from stellwerk.api import ModelLineage, ModelPatch, ModelRequest, ModelView, Page
from stellwerk.errors import ConflictError, NotFoundError
from stellwerk.events import (
    Envelope,
    ModelDeleted,
    ModelRegistered,
    RunCanceled,
    RunCompleted,
    RunFailed,
)
from stellwerk.ids import derived_id
from stellwerk.manifest import Manifest
from stellwerk_kit.db import Database, Tx
from stellwerk_model_registry.domain import Labels, fingerprint, near_names, patched_labels
from stellwerk_model_registry.tables import aware, models, names, registrations, runs, tags

CONSUMER = "model-registry-runs"
MAX_NAMES_COMPARED = 10_000

Terminal = RunCompleted | RunFailed | RunCanceled


@dataclass(frozen=True, slots=True)
class EndedRun:
    """A run that ended. ``state`` is completed, failed or canceled."""

    state: str
    outputs_manifest: str | None
    lineage: ModelLineage


@dataclass(frozen=True, slots=True)
class ListFilter:
    """What ``model-list`` is restricted to; ``tag`` is ``key`` or ``key=value``."""

    name: str | None = None
    run_id: str | None = None
    tag: str | None = None


class ModelStore:
    """Transactions on models and ended runs."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def remember_run(self, envelope: Envelope, event: Terminal) -> None:
        """Keep what a run left behind."""
        lineage = ModelLineage(
            run_id=event.run_id,
            experiment=event.experiment,
            env_id=event.env_id,
            snapshot=event.snapshot,
            inputs=event.inputs,
        )

        def work(tx: Tx) -> None:
            if not tx.first_time(CONSUMER, envelope.id) or _ended_run(tx.conn, event.run_id):
                return
            tx.conn.execute(
                insert(runs).values(
                    run_id=event.run_id,
                    state=event.verb,
                    outputs_manifest=event.outputs_manifest,
                    lineage=lineage.model_dump(mode="json"),
                    ended_at=tx.now,
                )
            )

        await self._db.write(work)

    async def ended_run(self, run_id: str) -> EndedRun | None:
        """What is known of a run; None while it has not ended."""
        return await self._db.read(lambda conn: _ended_run(conn, run_id))

    async def forget_unsuccessful(self, before: datetime) -> int:
        """Drop failed and canceled runs that ended before a time; returns how many."""
        stale = (runs.c.state != RunCompleted.verb) & (runs.c.ended_at < before)
        return await self._db.write(lambda tx: tx.conn.execute(delete(runs).where(stale)).rowcount)

    async def repeated(self, key: str | None, request: ModelRequest) -> ModelView | None:
        """The answer to an earlier request of this key.

        Raises ConflictError where that one asked for something else.
        """
        if key is None:
            return None
        return await self._db.read(lambda conn: _repeated(conn, key, request))

    async def forget_registrations(self, before: datetime) -> None:
        """Drop the keys of requests that were answered before a time."""
        old = registrations.c.made_at < before
        await self._db.write(lambda tx: tx.conn.execute(delete(registrations).where(old)))

    async def register(
        self,
        request: ModelRequest,
        path: str | None,
        manifest: Manifest,
        lineage: ModelLineage,
        key: str | None = None,
    ) -> ModelView:
        """Keep a model as the next version of its name, once for a ``key``."""

        def work(tx: Tx) -> ModelView:
            if key is not None and (known := _repeated(tx.conn, key, request)) is not None:
                return known
            version = _next_version(tx.conn, request.name)
            tx.conn.execute(
                insert(models).values(
                    name=request.name,
                    version=version,
                    run_id=request.run_id,
                    path=path,
                    manifest=manifest.digest(),
                    files=len(manifest.entries),
                    bytes=manifest.size,
                    description=request.description,
                    framework=request.framework,
                    framework_version=request.framework_version,
                    properties=request.properties,
                    lineage=lineage.model_dump(mode="json"),
                    created_at=tx.now,
                )
            )
            _write_tags(tx.conn, request.name, version, request.tags)
            if key is not None:
                tx.conn.execute(
                    insert(registrations).values(
                        key=key,
                        fingerprint=fingerprint(request),
                        name=request.name,
                        version=version,
                        made_at=tx.now,
                    )
                )
            view = _view(tx.conn, _model(tx.conn, request.name, version))
            tx.emit(
                ModelRegistered(
                    model_id=view.model_id,
                    name=view.name,
                    version=version,
                    run_id=request.run_id,
                    manifest=view.manifest,
                    files=view.files,
                    bytes=view.bytes,
                )
            )
            return view

        return await self._db.write(work)

    async def get(self, name: str, version: int | None) -> ModelView:
        """One version (None: the latest)."""
        return await self._db.read(lambda conn: _view(conn, _model(conn, name, version)))

    async def list_models(
        self, wanted: ListFilter, limit: int, cursor: tuple[str, int] | None
    ) -> Page[ModelView]:
        """Models by name, the latest version first; ``cursor`` is the last one shown."""
        query = _filtered(wanted).order_by(models.c.name, models.c.version.desc()).limit(limit + 1)
        if cursor is not None:
            name, version = cursor
            later = and_(models.c.name == name, models.c.version < version)
            query = query.where(or_(models.c.name > name, later))

        def work(conn: Connection) -> Page[ModelView]:
            rows = conn.execute(query).all()
            items = tuple(_view(conn, row) for row in rows[:limit])
            last = f"{items[-1].name}:{items[-1].version}" if len(rows) > limit else None
            return Page[ModelView](items=items, next_cursor=last)

        return await self._db.read(work)

    async def patch(self, name: str, version: int, patch: ModelPatch) -> ModelView:
        """Change description and tags, add properties."""

        def work(tx: Tx) -> ModelView:
            model = _model(tx.conn, name, version)
            labels = patched_labels(patch, _tags(tx.conn, name, version), model.properties)
            changed: dict[str, Any] = {"properties": labels[1]}
            if patch.description is not None:
                changed["description"] = patch.description
            here = (models.c.name == name) & (models.c.version == version)
            tx.conn.execute(update(models).where(here).values(**changed))
            _write_tags(tx.conn, name, version, labels[0])
            return _view(tx.conn, _model(tx.conn, name, version))

        return await self._db.write(work)

    async def delete(self, name: str, version: int) -> ModelView:
        """Delete one version; returns it as it was. Its number is not used again."""

        def work(tx: Tx) -> ModelView:
            view = _view(tx.conn, _model(tx.conn, name, version))
            _write_tags(tx.conn, name, version, {})
            here = (models.c.name == name) & (models.c.version == version)
            tx.conn.execute(delete(models).where(here))
            tx.emit(ModelDeleted(model_id=view.model_id, name=name, version=version))
            return view

        return await self._db.write(work)


def _repeated(conn: Connection, key: str, request: ModelRequest) -> ModelView | None:
    row = conn.execute(select(registrations).where(registrations.c.key == key)).first()
    if row is None:
        return None
    if row.fingerprint != fingerprint(request):
        raise ConflictError(
            "this Idempotency-Key was used before with another content; use a new one",
            code="idempotency.conflict",
        )
    return _view(conn, _model(conn, row.name, row.version))


def _ended_run(conn: Connection, run_id: str) -> EndedRun | None:
    row = conn.execute(select(runs).where(runs.c.run_id == run_id)).first()
    if row is None:
        return None
    return EndedRun(row.state, row.outputs_manifest, ModelLineage.model_validate(row.lineage))


def _model(conn: Connection, name: str, version: int | None) -> Row[Any]:
    """A model's row; raises NotFoundError naming near names or the versions there are."""
    query = select(models).where(models.c.name == name).order_by(models.c.version.desc())
    latest = conn.execute(query.limit(1)).first()
    if latest is None:
        known = conn.scalars(select(models.c.name).distinct().limit(MAX_NAMES_COMPARED)).all()
        raise NotFoundError(
            f"there is no model {name[:255]!r}{near_names(name, known)}",
            code="model.not_found",
            field="name",
        )
    if version is None or version == latest.version:
        return latest
    found = conn.execute(query.where(models.c.version == version)).first()
    if found is None:
        raise NotFoundError(
            f"model {name!r} has no version {version}; the latest is {latest.version}",
            code="model.version_not_found",
            field="version",
        )
    return found


def _view(conn: Connection, row: Row[Any]) -> ModelView:
    return ModelView(
        name=row.name,
        version=row.version,
        model_id=derived_id("model", row.name),
        description=row.description,
        tags=_tags(conn, row.name, row.version),
        properties=row.properties,
        framework=row.framework,
        framework_version=row.framework_version,
        path=row.path,
        manifest=row.manifest,
        files=row.files,
        bytes=row.bytes,
        lineage=ModelLineage.model_validate(row.lineage),
        created_at=aware(row.created_at),
    )


def _filtered(wanted: ListFilter) -> Any:
    query = select(models)
    if wanted.name is not None:
        query = query.where(models.c.name == wanted.name)
    if wanted.run_id is not None:
        query = query.where(models.c.run_id == wanted.run_id)
    if wanted.tag is not None:
        key, equals, value = wanted.tag.partition("=")
        tagged = select(tags.c.key).where(
            tags.c.name == models.c.name, tags.c.version == models.c.version, tags.c.key == key
        )
        query = query.where((tagged.where(tags.c.value == value) if equals else tagged).exists())
    return query


def _next_version(conn: Connection, name: str) -> int:
    row = conn.execute(select(names).where(names.c.name == name)).first()
    if row is None:
        conn.execute(insert(names).values(name=name, last_version=1))
        return 1
    version = int(row.last_version) + 1
    conn.execute(update(names).where(names.c.name == name).values(last_version=version))
    return version


def _tags(conn: Connection, name: str, version: int) -> Labels:
    query = select(tags).where(tags.c.name == name, tags.c.version == version).order_by(tags.c.key)
    return {row.key: row.value for row in conn.execute(query)}


def _write_tags(conn: Connection, name: str, version: int, wanted: Labels) -> None:
    """Make ``wanted`` the tags of a version."""
    conn.execute(delete(tags).where(tags.c.name == name, tags.c.version == version))
    rows = [
        {"name": name, "version": version, "key": key, "value": text}
        for key, text in wanted.items()
    ]
    if rows:
        conn.execute(insert(tags), rows)
