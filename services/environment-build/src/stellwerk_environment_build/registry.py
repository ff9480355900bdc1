"""Registered environments, by name and version: the SQL behind their verbs."""

import base64
import difflib
import json
from collections.abc import Sequence

from sqlalchemy import Row, func, insert, select, tuple_
from sqlalchemy.engine import Connection

from stellwerk.api import EnvironmentView, Page
from stellwerk.curated import curated_environments
from stellwerk.environment_spec import EnvironmentDefinition, NormalisedSpec
from stellwerk.errors import NotFoundError, UserError
from stellwerk_environment_build.tables import aware, environments
from stellwerk_kit.db import Database, Tx

_SHOWN = 10


class EnvironmentStore:
    """Transactions on registered environments."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def register(
        self, name: str, definition: EnvironmentDefinition, spec: NormalisedSpec, env_id: str
    ) -> EnvironmentView:
        """A new version, or the latest one if its definition is the same."""

        def work(tx: Tx) -> EnvironmentView:
            latest = _find(tx.conn, name, None)
            content = definition.model_dump(mode="json")
            if latest is not None and _definition(latest) == definition:
                return _view(latest, created=False)
            version = 1 if latest is None else latest.version + 1
            tx.conn.execute(
                insert(environments).values(
                    name=name,
                    version=version,
                    definition=content,
                    env_id=env_id,
                    warnings=list(spec.warnings),
                    created_at=tx.now,
                )
            )
            return _view(_require(tx.conn, name, version))

        return await self._db.write(work)

    async def get(self, name: str, version: int | None) -> EnvironmentView:
        """One version, or the latest. Raises NotFoundError that names near names."""
        return await self._db.read(lambda conn: _view(_require(conn, name, version)))

    async def list(
        self, name: str | None, limit: int, cursor: str | None, *, curated: bool = False
    ) -> Page[EnvironmentView]:
        """Versions of ``name``, or all (``curated``: of those, else the others); newest first."""
        query = select(environments).order_by(environments.c.name, -environments.c.version)
        if name is None:
            is_curated = environments.c.name.in_(curated_environments())
            query = query.where(is_curated if curated else ~is_curated)
        if name is not None:
            query = query.where(environments.c.name == name)
        if cursor is not None:
            after_name, after_version = _decode(cursor)
            key = tuple_(environments.c.name, -environments.c.version)
            query = query.where(key > tuple_(after_name, -after_version))

        def work(conn: Connection) -> Page[EnvironmentView]:
            rows = conn.execute(query.limit(limit + 1)).all()
            more = _encode(rows[limit - 1]) if len(rows) > limit else None
            return Page(items=tuple(_view(row) for row in rows[:limit]), next_cursor=more)

        return await self._db.read(work)


def _find(conn: Connection, name: str, version: int | None) -> Row[tuple[object, ...]] | None:
    query = select(environments).where(environments.c.name == name)
    if version is not None:
        query = query.where(environments.c.version == version)
    return conn.execute(query.order_by(environments.c.version.desc()).limit(1)).first()


def _some(names: Sequence[str]) -> str:
    """The first names of all, for a message."""
    more = ", …" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more


def _require(conn: Connection, name: str, version: int | None) -> Row[tuple[object, ...]]:
    row = _find(conn, name, version)
    if row is not None:
        return row
    latest = conn.execute(
        select(func.max(environments.c.version)).where(environments.c.name == name)
    ).scalar()
    if latest is not None:
        raise NotFoundError(
            f"environment {name!r} has no version {version}; its versions are 1 to {latest}",
            code="env.not_found",
            field="version",
        )
    names = conn.execute(select(environments.c.name).distinct().limit(10_000)).scalars().all()
    near = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are {_some(names)}"
    raise NotFoundError(
        f"environment {name!r} is not registered; {hint}", code="env.not_found", field="name"
    )


def _definition(row: Row[tuple[object, ...]]) -> EnvironmentDefinition:
    return EnvironmentDefinition.model_validate(row.definition)


def _view(row: Row[tuple[object, ...]], *, created: bool = True) -> EnvironmentView:
    curated = curated_environments().get(row.name)
    return EnvironmentView(
        name=row.name,
        version=row.version,
        curated=curated is not None,
        description=curated.description if curated else "",
        env_id=row.env_id,
        definition=_definition(row),
        created_at=aware(row.created_at),
        created=created,
        warnings=tuple(row.warnings),
    )


def _encode(row: Row[tuple[object, ...]]) -> str:
    return base64.urlsafe_b64encode(json.dumps([row.name, row.version]).encode()).decode()


def _decode(cursor: str) -> tuple[str, int]:
    try:
        name, version = json.loads(base64.urlsafe_b64decode(cursor.encode()))
        return str(name), int(version)
    except (ValueError, TypeError) as error:
        raise UserError(
            "cursor: it is not one that this list returned; begin without it",
            code="cursor.invalid",
            field="cursor",
        ) from error
