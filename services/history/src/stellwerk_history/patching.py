"""Changes that users make to a run: tags, properties, its display name."""

from dataclasses import replace
from datetime import datetime

from sqlalchemy import and_, delete, update
from sqlalchemy.engine import Connection

from stellwerk.api import RunPatch, RunView
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk_history import rows
from stellwerk_history.domain import view
from stellwerk_history.metric_store import MAX_LABELS
from stellwerk_history.tables import labels, runs
from stellwerk_kit.db import Database, Tx


def not_found(run_id: str) -> NotFoundError:
    """The error for a run that history does not have."""
    return NotFoundError(
        f"run_id: there is no run {run_id[:100]!r}.", code="run.not_found", field="run_id"
    )


class Patches:
    """Transactions on what users may change."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def patch(self, run_id: str, patch: RunPatch, now: datetime) -> RunView:
        """Merge tags, add properties, set the display name.

        Raises NotFoundError ``run.not_found``, ConflictError ``property.immutable`` for a
        property that has another value already, UserError ``tags.too_many``.
        """

        def work(tx: Tx) -> RunView:
            run = rows.load_run(tx.conn, run_id)
            if run is None:
                raise not_found(run_id)
            _change_labels(tx.conn, run_id, patch)
            if patch.display_name is not None:
                run = replace(run, display_name=patch.display_name)
                values = rows.run_values(run)
                tx.conn.execute(update(runs).where(runs.c.run_id == run_id).values(values))
            tags, properties = rows.load_labels(tx.conn, [run_id]).get(run_id, ({}, {}))
            return view(run, now, tags, properties, rows.load_spec(tx.conn, run_id))

        return await self._db.write(work)


def _change_labels(conn: Connection, run_id: str, patch: RunPatch) -> None:
    tags, properties = rows.load_labels(conn, [run_id]).get(run_id, ({}, {}))
    for name, value in patch.properties.items():
        if name in properties and properties[name] != value:
            raise ConflictError(
                f"properties.{name}: is {_short(properties[name])} already and properties never "
                "change; use a tag for a value that does.",
                code="property.immutable",
                field=f"properties.{name}",
            )
    merged = (tags.keys() - set(patch.remove_tags)) | patch.tags.keys()
    if len(merged) + len(properties.keys() | patch.properties.keys()) > MAX_LABELS:
        raise UserError(
            f"tags: a run has at most {MAX_LABELS} tags and properties together; remove some.",
            code="tags.too_many",
            field="tags",
        )
    for some in rows.slices(set(patch.remove_tags) & tags.keys()):
        mine = and_(labels.c.run_id == run_id, labels.c.kind == rows.TAG)
        conn.execute(delete(labels).where(mine, labels.c.name.in_(some)))
    rows.write_labels(conn, run_id, rows.TAG, patch.tags, replace=True)
    rows.write_labels(conn, run_id, rows.PROPERTY, patch.properties, replace=False)


def _short(value: str | None) -> str:
    return "null" if value is None else repr(value[:100])
