"""Builds and who waits for them: the SQL of what runs need. Each method is one transaction."""

from collections.abc import Callable

from sqlalchemy import Row, bindparam, delete, insert, select, update
from sqlalchemy.engine import Connection

from stellwerk.api import BuildView
from stellwerk.environment_spec import NormalisedSpec
from stellwerk.errors import NotFoundError
from stellwerk.ids import derived_id
from stellwerk_environment_build import domain
from stellwerk_environment_build.cache import Ready
from stellwerk_environment_build.domain import Job, Waiter
from stellwerk_environment_build.failures import Failure
from stellwerk_environment_build.tables import builds, waiters
from stellwerk_kit.db import Database, Tx
from stellwerk_kit.prepared import Prepared

CONSUMER = "environment-build-runs"

_NUMBER = Prepared(select(builds.c.build).where(builds.c.env_id == bindparam("of")))


class BuildStore:
    """Transactions on builds and waiters."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def request(
        self,
        event_id: str,
        spec: NormalisedSpec,
        env_id: str,
        waiter: Waiter,
        lookup: Callable[[], Ready | None],
        *,
        asked: int,
    ) -> bool:
        """Answer a run at once if the environment is there, else let it wait; True: it waits.

        ``lookup`` runs inside the transaction. A build publishes its files before it tells its
        waiters, so a run either finds the files here or is told later: never neither.
        """

        def work(tx: Tx) -> bool:
            if not tx.first_time(CONSUMER, event_id):
                return False
            if (found := lookup()) is not None:
                number = _number(tx.conn, env_id)
                for there in domain.ready(found, number, [waiter], cached=True, asked=asked):
                    tx.emit(there, causation_id=event_id)
                return False
            job = _claim(tx, env_id, spec)
            _wait(tx.conn, waiter, env_id)
            for fact in domain.started(env_id, job.build, [waiter.run_id]):
                tx.emit(fact, causation_id=event_id)
            return True

        return await self._db.write(work)

    async def refuse(self, event_id: str, run_id: str, failure: Failure) -> None:
        """Tell a run that what it asked for is no environment."""

        def work(tx: Tx) -> None:
            if tx.first_time(CONSUMER, event_id):
                nothing = derived_id("no-environment", run_id)
                for fact in domain.failed(nothing, 0, [run_id], failure):
                    tx.emit(fact, causation_id=event_id)

        await self._db.write(work)

    async def start(self, spec: NormalisedSpec, env_id: str, *, rebuild: bool) -> BuildView:
        """Have the environment built though no run asks for it; joins a build under way."""

        def work(tx: Tx) -> BuildView:
            running = _running(tx.conn, env_id)
            job = _claim(tx, env_id, spec, rebuild=rebuild)
            if not running:
                for fact in domain.started(env_id, job.build, []):
                    tx.emit(fact)
            return _view(_row(tx.conn, env_id))

        return await self._db.write(work)

    async def due(self) -> list[Job]:
        """Builds that are to be done or under way."""
        query = select(builds).where(builds.c.state == "building").order_by(builds.c.started_at)
        return await self._db.read(lambda conn: [_job(row) for row in conn.execute(query)])

    async def recover(self) -> None:
        """After a restart: builds that were cut short begin anew, but not for ever."""

        def work(tx: Tx) -> None:
            for row in tx.conn.execute(select(builds).where(builds.c.state == "building")).all():
                if row.interruptions >= domain.MAX_INTERRUPTIONS:
                    _fail(tx, _job(row), domain.INTERRUPTED)
                    continue
                again = {"build": row.build + 1, "interruptions": row.interruptions + 1}
                tx.conn.execute(update(builds).where(builds.c.env_id == row.env_id).values(**again))
                ids = [waiter.run_id for waiter in _waiting(tx.conn, row.env_id)]
                for fact in domain.started(row.env_id, row.build + 1, ids):
                    tx.emit(fact)

        await self._db.write(work)

    async def finish(self, job: Job, found: Ready, *, cached: bool, seconds: float) -> None:
        """The environment is there: tell all that waited."""

        def work(tx: Tx) -> None:
            if not _is_current(tx.conn, job):
                return
            tx.conn.execute(
                update(builds)
                .where(builds.c.env_id == job.env_id)
                .values(state="ready", result=found.model_dump(mode="json"), rebuild=False)
                .values(interruptions=0, reason=None, message=None)
            )
            told = _waiting(tx.conn, job.env_id)
            for fact in domain.ready(found, job.build, told, cached=cached, seconds=seconds):
                tx.emit(fact)
            tx.conn.execute(delete(waiters).where(waiters.c.env_id == job.env_id))

        await self._db.write(work)

    async def fail(self, job: Job, failure: Failure) -> None:
        """The environment cannot be had: tell all that waited."""

        def work(tx: Tx) -> None:
            if _is_current(tx.conn, job):
                _fail(tx, job, failure)

        await self._db.write(work)

    async def get(self, env_id: str) -> BuildView:
        """State of an environment's build. Raises NotFoundError."""
        return await self._db.read(lambda conn: _view(_row(conn, env_id)))

    async def spec(self, env_id: str) -> NormalisedSpec:
        """What an environment was built from. Raises NotFoundError."""
        return await self._db.read(
            lambda conn: NormalisedSpec.model_validate(_row(conn, env_id).spec)
        )

    async def known(self, env_id: str) -> Ready | None:
        """What the last finished build of an environment came to. Raises NotFoundError."""

        def look(conn: Connection) -> Ready | None:
            result = _row(conn, env_id).result
            return None if result is None else Ready.model_validate(result)

        return await self._db.read(look)

    async def number(self, env_id: str) -> int:
        """How many builds an environment has had."""
        return await self._db.look(lambda conn: _number(conn, env_id))

    async def states(self, env_ids: list[str]) -> dict[str, str]:
        """States of those environments that were ever built."""
        query = select(builds.c.env_id, builds.c.state).where(builds.c.env_id.in_(env_ids))
        return await self._db.read(
            lambda conn: {row.env_id: row.state for row in conn.execute(query)}
        )


def _claim(tx: Tx, env_id: str, spec: NormalisedSpec, *, rebuild: bool = False) -> Job:
    """The build of ``env_id``: the one under way, or a new one."""
    row = tx.conn.execute(select(builds).where(builds.c.env_id == env_id)).first()
    if row is not None and row.state == "building":
        return _job(row)
    values = {
        "build": 1 if row is None else row.build + 1,
        "state": "building",
        "spec": spec.model_dump(mode="json"),
        "rebuild": rebuild,
        "interruptions": 0,
        "started_at": tx.now,
    }
    if row is None:
        tx.conn.execute(insert(builds).values(env_id=env_id, **values))
    else:
        tx.conn.execute(update(builds).where(builds.c.env_id == env_id).values(**values))
    return _job(_row(tx.conn, env_id))


def _fail(tx: Tx, job: Job, failure: Failure) -> None:
    tx.conn.execute(
        update(builds)
        .where(builds.c.env_id == job.env_id)
        .values(state="failed", reason=failure.reason, message=failure.message, result=None)
    )
    ids = [waiter.run_id for waiter in _waiting(tx.conn, job.env_id)]
    for fact in domain.failed(job.env_id, job.build, ids, failure):
        tx.emit(fact)
    tx.conn.execute(delete(waiters).where(waiters.c.env_id == job.env_id))


def _row(conn: Connection, env_id: str) -> Row[tuple[object, ...]]:
    row = conn.execute(select(builds).where(builds.c.env_id == env_id)).first()
    if row is None:
        raise NotFoundError(
            f"env_id: no environment {env_id[:60]!r} was built here", code="env.not_found"
        )
    return row


def _number(conn: Connection, env_id: str) -> int:
    return int(_NUMBER.scalar(conn, {"of": env_id}) or 0)


def _running(conn: Connection, env_id: str) -> bool:
    state = conn.execute(select(builds.c.state).where(builds.c.env_id == env_id)).scalar()
    return state == "building"


def _is_current(conn: Connection, job: Job) -> bool:
    row = conn.execute(select(builds).where(builds.c.env_id == job.env_id)).first()
    return row is not None and row.state == "building" and row.build == job.build


def _waiting(conn: Connection, env_id: str) -> list[Waiter]:
    query = select(waiters).where(waiters.c.env_id == env_id).order_by(waiters.c.run_id)
    return [
        Waiter(
            row.run_id,
            row.name,
            row.version,
            tuple(sorted(row.variables.items())),
            tuple(row.warnings),
        )
        for row in conn.execute(query)
    ]


def _wait(conn: Connection, waiter: Waiter, env_id: str) -> None:
    mine = (waiters.c.run_id == waiter.run_id, waiters.c.env_id == env_id)
    conn.execute(delete(waiters).where(*mine))
    conn.execute(
        insert(waiters).values(
            run_id=waiter.run_id,
            env_id=env_id,
            name=waiter.name,
            version=waiter.version,
            variables=dict(waiter.variables),
            warnings=list(waiter.warnings),
        )
    )


def _job(row: Row[tuple[object, ...]]) -> Job:
    spec = NormalisedSpec.model_validate(row.spec)
    return Job(row.env_id, row.build, spec, row.rebuild)


def _view(row: Row[tuple[object, ...]]) -> BuildView:
    known = {} if row.state == "building" else dict(row.result or {})
    fields = ("python", "packages", "lock_digest", "sbom_digest", "image", "bytes", "seconds")
    return BuildView(
        env_id=row.env_id,
        build=row.build,
        state=row.state,
        warnings=tuple(row.spec.get("warnings", ())),
        reason=row.reason if row.state == "failed" else None,
        message=row.message if row.state == "failed" else None,
        **{name: known[name] for name in fields if name in known},
    )
