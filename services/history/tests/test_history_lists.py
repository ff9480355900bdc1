"""Lists of runs: every order, every filter, page by page; none of them sorts."""

import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest
import pytest_asyncio
from history_setup import START, Sim, completed, placed, preparing, queued, spec
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text

from stellwerk import events as e
from stellwerk.api import RunPatch, RunView
from stellwerk.errors import UserError
from stellwerk_history.metric_store import Message, MetricStore
from stellwerk_history.paging import decode_cursor, encode_cursor, parse_order
from stellwerk_history.patching import Patches
from stellwerk_history.queries import Queries, RunFilter, page_query
from stellwerk_history.store import Fact, ProjectionStore
from stellwerk_history.tables import metadata
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.db import Database

RUNS = 60
NOW = datetime(2026, 6, 1, tzinfo=UTC)
ORDERS = ["newest", "oldest", "name", "name desc", "duration", "duration asc", "status", "status desc",
          "metric:loss", "metric:loss asc"]  # fmt: skip


@pytest_asyncio.fixture
async def db(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/h.db", metadata, clock=SystemClock(), source="/test")
    await database.start()
    yield database
    await database.close()


async def fill(db: Database, count: int) -> None:
    """Runs of three experiments in several states, some with metrics and tags."""
    sim = Sim(cast(Any, None), cast(Any, None))
    facts: list[Fact] = []
    positions = itertools.count(1)

    def say(*events: e.Event, passed_s: float = 1.0) -> None:
        facts.extend(Fact(sim.wrap(event, passed_s=passed_s), next(positions)) for event in events)

    for number in range(count):
        run_id = f"{number * 7919 % 10_007:08d}" + "0" * 24
        tags = {"even": str(number % 4)} if number % 2 == 0 else {}
        name = f"name {number % 11}" if number % 5 else None
        wanted = spec(
            tags=tags,
            display_name=name,
            target="gpu" if number % 3 else "local",
            properties={"n": str(number % 2)},
        )
        say(e.RunSubmitted(run_id=run_id, experiment=f"exp {number % 3}", spec=wanted))
        if number % 4:
            say(preparing(run_id), queued(run_id), *placed(run_id, 1))
        if number % 4 == 3:
            say(
                e.RunFinalizing(run_id=run_id, attempt=1, outcome="Completed", exit=None),
                passed_s=number % 7,
            )
            say(completed(run_id))
    for start in range(0, len(facts), 256):
        await ProjectionStore(db).project(
            facts[start : start + 256], facts[start : start + 256][-1].position
        )
    messages = [
        Message(f"{number * 7919 % 10_007:08d}" + "0" * 24, 1, b'{"first":0,"records":[{"k":"metric","n":"loss","t":"scalar","v":%d.5,"s":null,"ts":1}]}' % (number % 13))
        for number in range(0, count, 2)
    ]  # fmt: skip
    await MetricStore(db).add(messages, 1)


async def pages(db: Database, wanted: RunFilter, order: str, limit: int) -> list[RunView]:
    found: list[RunView] = []
    cursor = None
    while True:
        page = await Queries(db).list_runs(wanted, parse_order(order), limit, cursor, NOW)
        assert 0 < len(page.items) <= limit or not found
        found += page.items
        cursor = page.next_cursor
        if cursor is None:
            return found


FILTERS = [
    RunFilter(),
    RunFilter(experiment="exp 1"),
    RunFilter(status="Completed"),
    RunFilter(tag="even"),
    RunFilter(tag="even=2", experiment="exp 2"),
    RunFilter(property="n=1", target="gpu"),
    RunFilter(search="NAME 1"),
    RunFilter(search="0000"),
    RunFilter(experiment="none"),
]


def matches(view: RunView, wanted: RunFilter) -> bool:
    def label(labels: dict[str, str | None], asked: str | None) -> bool:
        name, equals, value = (asked or "").partition("=")
        return asked is None or (name in labels and (not equals or labels[name] == value))

    return (
        wanted.experiment in {None, view.experiment}
        and wanted.status in {None, view.status}
        and wanted.target in {None, view.target}
        and label(view.tags, wanted.tag)
        and label(view.properties, wanted.property)
        and (wanted.search is None or view.run_id.startswith(wanted.search)
             or wanted.search.lower() in (view.display_name or "").lower()
             or wanted.search.lower() in (view.display_name or view.run_id)
             or wanted.search.lower() in view.experiment)
    )  # fmt: skip


def sort_key(view: RunView, order: str) -> Any:
    if order.startswith("name"):
        return view.display_name or view.run_id
    if order.startswith("status"):
        return view.status
    if order.startswith("duration"):
        done = view.started_at and view.ended_at
        return (view.ended_at - view.started_at).total_seconds() if done else -1.0  # type: ignore[operator]
    return 0


async def test_pages_are_the_whole_list_in_order(db: Database) -> None:
    await fill(db, RUNS)
    every = await pages(db, RunFilter(), "oldest", 200)
    assert len(every) == RUNS
    for wanted, order in itertools.product(FILTERS, ORDERS):
        listed = await pages(db, wanted, order, 7)
        expected = [view for view in every if matches(view, wanted)]
        if order.startswith("metric"):
            have = {view.run_id for view in expected if int(view.run_id[:8]) in
                    {number * 7919 % 10_007 for number in range(0, RUNS, 2)}}  # fmt: skip
            assert {view.run_id for view in listed} == have
            assert len(listed) == len(have)
            continue
        down = order in {"newest", "name desc", "status desc", "duration"}
        place = {view.run_id: index for index, view in enumerate(every)}
        expected.sort(key=lambda view: (sort_key(view, order), place[view.run_id]), reverse=down)
        assert [view.run_id for view in listed] == [view.run_id for view in expected], (
            wanted,
            order,
        )


async def test_a_leaderboard_is_in_the_order_of_its_values(db: Database) -> None:
    await fill(db, RUNS)
    values = {f"{n * 7919 % 10_007:08d}" + "0" * 24: n % 13 + 0.5 for n in range(0, RUNS, 2)}
    best = [values[view.run_id] for view in await pages(db, RunFilter(), "metric:loss", 9)]
    assert best == sorted(values.values(), reverse=True)
    worst = [values[view.run_id] for view in await pages(db, RunFilter(), "metric:loss asc", 9)]
    assert worst == sorted(values.values())
    assert await pages(db, RunFilter(), "metric:none", 9) == []


async def test_runs_that_come_meanwhile_move_no_page(db: Database) -> None:
    await fill(db, 20)
    queries, order = Queries(db), parse_order("newest")
    first = await queries.list_runs(RunFilter(), order, 10, None, NOW)
    sim = Sim(cast(Any, None), cast(Any, None))
    event = e.RunSubmitted(run_id="new", experiment="exp 0", spec=spec())
    await ProjectionStore(db).project([Fact(sim.wrap(event), 9999)], 9999)
    second = await queries.list_runs(RunFilter(), order, 10, first.next_cursor, NOW)
    assert "new" not in {view.run_id for view in second.items}
    assert len({view.run_id for view in (*first.items, *second.items)}) == 20


async def explained(db: Database, sql: str) -> list[str]:
    query = text(f"EXPLAIN QUERY PLAN {sql}")
    return await db.read(lambda conn: [row.detail for row in conn.execute(query)])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("experiment", [None, "exp 1"])
async def test_no_list_is_sorted(db: Database, order: str, experiment: str | None) -> None:
    """The plan has no sorter, so a page costs the same at 50,000 runs as at 1,000."""
    await fill(db, 40)
    for after in (
        None,
        (
            {"name": "n", "status": "s", "metric": 1.0, "duration": 1.0}.get(
                parse_order(order).column
            ),
            5,
        ),
    ):
        query = page_query(RunFilter(experiment=experiment), parse_order(order), after).limit(50)
        sql = str(query.compile(compile_kwargs={"literal_binds": True}))
        plan = await explained(db, sql)
        assert not any("TEMP B-TREE" in step for step in plan), plan
        assert any("INDEX" in step for step in plan), plan


@pytest.mark.parametrize(
    "order", ["", "best", "newest asc", "metric:", "name  desc", "duration down"]
)
def test_unknown_orders_are_refused(order: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_order(order)
    assert (caught.value.code, caught.value.field) == ("order.invalid", "order")


@given(st.text(max_size=40) | st.binary(max_size=60).map(lambda raw: raw.hex()))
def test_cursors_made_elsewhere_are_refused(cursor: str) -> None:
    with pytest.raises(UserError) as caught:
        decode_cursor(parse_order("newest"), cursor)
    assert (caught.value.code, caught.value.field) == ("cursor.invalid", "cursor")


@pytest.mark.parametrize(
    ("made_for", "key", "position"),
    [("newest", "x", 1), ("oldest", None, 1), ("newest", None, -1), ("newest", None, 2**63), ("newest", None, 1.5)],
)  # fmt: skip
def test_cursors_of_other_lists_are_refused(made_for: str, key: Any, position: Any) -> None:
    with pytest.raises(UserError):
        decode_cursor(parse_order("newest"), encode_cursor(made_for, key, position))
    with pytest.raises(UserError):
        decode_cursor(parse_order("metric:a"), encode_cursor("metric:a", "text", 1))


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=300), st.integers(0, 2**62))  # fmt: skip
def test_cursors_come_back(name: str, position: int) -> None:
    assert decode_cursor(parse_order("name"), encode_cursor("name", name, position)) == (
        name,
        position,
    )


async def test_values_and_tags_may_come_before_their_run(db: Database) -> None:
    body = (
        b'{"first":0,"records":[{"k":"metric","n":"loss","t":"scalar","v":1,"s":null,"ts":1},'
        b'{"k":"tag","n":"early","v":"yes"}]}'
    )
    await MetricStore(db).add([Message("late", 1, body)], 1)
    sim = Sim(cast(Any, None), cast(Any, None))
    event = e.RunSubmitted(run_id="late", experiment="x", spec=spec(tags={"early": "no", "b": "1"}))
    await ProjectionStore(db).project([Fact(sim.wrap(event), 3)], 3)
    (view,) = await pages(db, RunFilter(tag="early=yes"), "newest", 5)
    assert view.tags == {"early": "yes", "b": "1"}
    assert len(await pages(db, RunFilter(experiment="x"), "metric:loss", 5)) == 1


async def test_too_many_tags(db: Database) -> None:
    await fill(db, 1)
    patch = RunPatch(tags={f"t{number}": None for number in range(1001)})
    with pytest.raises(UserError) as caught:
        await Patches(db).patch("0" * 32, patch, START)
    assert caught.value.code == "tags.too_many"


async def test_a_new_attempt_takes_its_place_on_the_leaderboard(db: Database) -> None:
    def body(name: str, value: float) -> bytes:
        return b'{"first":0,"records":[{"k":"metric","n":"%s","t":"scalar","v":%f,"s":null,"ts":1}]}' % (name.encode(), value)  # fmt: skip

    sim, metrics = Sim(cast(Any, None), cast(Any, None)), MetricStore(db)
    lost = e.RunRetrying(run_id="r", attempt=2, reason="lost", message="m", delay_s=1)
    story = [
        e.RunSubmitted(run_id="r", experiment="x", spec=spec()),
        preparing("r"),
        queued("r"),
        *placed("r", 1),
    ]
    await ProjectionStore(db).project(
        [Fact(sim.wrap(event), n) for n, event in enumerate(story, 1)], 9
    )
    await metrics.add([Message("r", 1, body("old", 1)), Message("r", 1, body("old", 2))], 1)
    assert len(await pages(db, RunFilter(), "metric:old", 5)) == 1
    again = [lost, *placed("r", 2)]
    await ProjectionStore(db).project(
        [Fact(sim.wrap(event), n) for n, event in enumerate(again, 10)], 19
    )
    await metrics.add([Message("r", 2, body("new", 3)), Message("r", 1, body("late", 4))], 2)
    assert await pages(db, RunFilter(), "metric:old", 5) == []
    assert await pages(db, RunFilter(), "metric:late", 5) == []
    assert len(await pages(db, RunFilter(), "metric:new", 5)) == 1
