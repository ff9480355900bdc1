"""Secrets as stored: the only SQL of the service. Values pass through here sealed only.

Each method is one transaction named after its intent.
"""

from collections.abc import Callable, Collection

from sqlalchemy import Row, delete, func, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.api import Page, SecretView
from stellwerk_keyvault.domain import Sealed, folded, not_found, too_many
from stellwerk_keyvault.tables import aware, secrets
from stellwerk_kit.db import Database, Tx

MAX_NAMES_COMPARED = 10_000
RESEALED_AT_ONCE = 100


class SecretStore:
    """Transactions on secrets. Names may be given in any letter case."""

    def __init__(self, db: Database, most: int) -> None:
        self._db, self._most = db, most

    async def put(self, name: str, sealed: Sealed) -> SecretView:
        """Keep a value under a name, in place of the one before. Raises ConflictError."""
        key = folded(name)

        def work(tx: Tx) -> SecretView:
            values = {
                "name": name,
                "key_id": sealed.key_id,
                "sealed": sealed.data,
                "updated_at": tx.now,
            }
            known = tx.conn.execute(select(secrets.c.folded).where(secrets.c.folded == key)).first()
            if known:
                tx.conn.execute(update(secrets).where(secrets.c.folded == key).values(values))
            else:
                if tx.conn.execute(select(func.count()).select_from(secrets)).scalar_one() >= (
                    self._most
                ):
                    raise too_many(self._most)
                tx.conn.execute(insert(secrets).values(folded=key, created_at=tx.now, **values))
            return _view(_row(tx.conn, name))

        return await self._db.write(work)

    async def get(self, name: str) -> tuple[SecretView, Sealed]:
        """A secret with its sealed value. Raises NotFoundError."""
        row = await self._db.read(lambda conn: _row(conn, name))
        return _view(row), Sealed(row.key_id, row.sealed)

    async def page(self, limit: int, cursor: str | None) -> Page[SecretView]:
        """Names in order, those behind ``cursor``."""

        def work(conn: Connection) -> Page[SecretView]:
            query = select(secrets).order_by(secrets.c.folded).limit(limit + 1)
            if cursor is not None:
                query = query.where(secrets.c.folded > cursor.lower())
            rows = conn.execute(query).all()
            more = rows[limit - 1].folded if len(rows) > limit else None
            return Page(items=tuple(map(_view, rows[:limit])), next_cursor=more)

        return await self._db.read(work)

    async def delete(self, name: str) -> SecretView:
        """Forget a secret. Raises NotFoundError."""

        def work(tx: Tx) -> SecretView:
            view = _view(_row(tx.conn, name))
            tx.conn.execute(delete(secrets).where(secrets.c.folded == folded(name)))
            return view

        return await self._db.write(work)

    async def reseal(
        self, key_ids: Collection[str], anew: Callable[[str, Sealed], Sealed | None]
    ) -> int:
        """Replace up to a hundred values that these keys sealed; returns how many.

        ``anew`` gets the folded name and the value as it is; None leaves it alone.
        """

        def work(tx: Tx) -> int:
            old = select(secrets).where(secrets.c.key_id.in_(key_ids)).limit(RESEALED_AT_ONCE)
            done = 0
            for row in tx.conn.execute(old).all():
                sealed = anew(row.folded, Sealed(row.key_id, row.sealed))
                if sealed is not None:
                    tx.conn.execute(
                        update(secrets)
                        .where(secrets.c.folded == row.folded)
                        .values(key_id=sealed.key_id, sealed=sealed.data)
                    )
                    done += 1
            return done

        return await self._db.write(work)


def _row(conn: Connection, name: str) -> Row[tuple[object, ...]]:
    row = conn.execute(select(secrets).where(secrets.c.folded == folded(name))).first()
    if row is None:
        names = select(secrets.c.name).limit(MAX_NAMES_COMPARED)
        raise not_found(name, conn.execute(names).scalars())
    return row


def _view(row: Row[tuple[object, ...]]) -> SecretView:
    return SecretView(
        name=row.name, created_at=aware(row.created_at), updated_at=aware(row.updated_at)
    )
