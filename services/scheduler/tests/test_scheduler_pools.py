"""Pool sizes, placement, explanations and the service clock: pure parts by example."""

import pytest
from ledger import Ledger
from scripted_facts import exited, image_ready, joined, scaled, submitted

from stellwerk.events import ExitSummary, Gpu, NodeResources, PoolTargetSet
from stellwerk.events.attempt import ExitReason
from stellwerk.runspec import Resources
from stellwerk_kit.testing import FakeClock
from stellwerk_scheduler import placement, pools, queueing
from stellwerk_scheduler.placement import FreeNode, Machine
from stellwerk_scheduler.pools import Bounds, IdleNode, PoolNodes, Provider
from stellwerk_scheduler.queueing import PoolState
from stellwerk_scheduler.retries import RULES, failure_of
from stellwerk_scheduler.settings import Settings
from stellwerk_scheduler.uptime import Uptime

MACHINE = NodeResources(cpus=4, memory_mb=8000, gpus=(Gpu(index=0, name="g", memory_mb=1),))


@pytest.mark.parametrize(
    ("bounds", "nodes", "demand", "expected"),
    [
        (Bounds(0, 4, 1), PoolNodes(), 0, 0),
        (Bounds(1, 4, 1), PoolNodes(), 0, 1),
        (Bounds(0, 4, 1), PoolNodes(busy=2), 1, 3),
        (Bounds(0, 4, 1), PoolNodes(busy=2), 10_000, 4),
        (Bounds(0, 4, 2), PoolNodes(busy=1, free_on_busy=1), 1, 1),
        (Bounds(0, 4, 2), PoolNodes(busy=1, free_on_busy=1), 4, 3),
        (Bounds(0, 0, 1), PoolNodes(busy=2), 5, 0),
    ],
)
def test_wanted(bounds: Bounds, nodes: PoolNodes, demand: int, expected: int) -> None:
    assert pools.wanted(bounds, nodes, demand) == expected


def test_growth_spreads_over_room_and_stops_where_it_ends() -> None:
    providers = [Provider("a", 1, 1), Provider("b", 0, 3)]
    assert pools.grow(3, providers) == {"b": 2}
    assert pools.grow(9, providers) == {"a": 2, "b": 3}
    assert pools.grow(1, providers) == {}
    assert pools.grow(5, []) == {}


def test_shrinking_spares_what_is_needed_and_what_is_not_idle_long_enough() -> None:
    idle = [IdleNode("n1", "x", True), IdleNode("n2", "x", True), IdleNode("n3", "x", False)]
    assert pools.shrink(Bounds(0, 4, 1), 3, 0, idle) == idle[:2]
    assert pools.shrink(Bounds(2, 4, 1), 3, 0, idle) == idle[:1]
    assert pools.shrink(Bounds(0, 4, 1), 3, 3, idle) == []
    assert pools.shrink(Bounds(0, 1, 1), 3, 3, idle) == idle[:2]
    assert pools.shrink(Bounds(0, 0, 1), 3, 0, idle) == idle


def test_a_machine_is_shared_by_what_was_asked_for() -> None:
    free = [FreeNode("n1", "x1"), FreeNode("n2", "x2")]
    busy = Machine(MACHINE, Resources(gpus=1, cpus=3, memory_mb=7000))
    machines = {"x1": busy, "x2": Machine(MACHINE, Resources())}
    for needs in (Resources(gpus=1), Resources(cpus=2), Resources(memory_mb=2000)):
        assert placement.choose(needs, free, machines) == free[1]
        assert placement.choose(needs, free[:1], machines) is None
    assert placement.choose(Resources(cpus=1), free, machines) == free[0]
    assert (
        placement.lacking(Resources(cpus=2), MACHINE, busy.used) == "cpus: asked for 2, there are 1"
    )


def test_unsatisfiable_names_the_maximum() -> None:
    assert placement.unsatisfiable(Resources(gpus=9), []) is None
    assert placement.unsatisfiable(Resources(gpus=1), [MACHINE]) is None
    failure = placement.unsatisfiable(Resources(memory_mb=9000), [MACHINE])
    assert failure is not None
    assert failure.code == "resources.unsatisfiable"
    assert "memory_mb: asked for 9000, there are 8000 at most" in failure.message


@pytest.mark.parametrize(
    ("state", "before", "reason", "text"),
    [
        (PoolState("p", 4), 0, "no-executor", "no executor provides nodes for p"),
        (PoolState("p", 4, silent=1), 2, "no-executor", "none responding); 2 runs are before"),
        (PoolState("p", 4, nodes=1, free_slots=1, executors=1), 0, "next", "a slot of p is free"),
        (PoolState("p", 4, nodes=1, growing_to=3, executors=1), 1, "scaling", "from 1 to 3 nodes"),
        (PoolState("p", 2, nodes=2, executors=1, running=("r",)), 0, "pool-full", "maximum of 2"),
        (PoolState("p", 4, nodes=2, executors=1), 0, "executors-full", "has 2 of 4 nodes"),
        (PoolState("p", 4, nodes=2, executors=1, room=1), 0, "scaling", "is about to grow"),
        (PoolState("p", 4, nodes=4, executors=1, room=1), 0, "pool-full", "maximum of 4"),
    ],
)
def test_every_wait_has_its_reason(state: PoolState, before: int, reason: str, text: str) -> None:
    view = queueing.explain(state, before)
    assert (view.reason, view.position) == (reason, before + 1)
    assert text in view.message
    assert view.unblock


def test_every_exit_reason_has_a_rule_and_a_sentence() -> None:
    from typing import get_args

    assert set(RULES) == set(get_args(ExitReason))
    for reason in RULES:
        failure = failure_of(ExitSummary(reason=reason, exit_code=3, signal=9, message="so"))
        assert failure.code
        alone = reason in {"exited", "signaled"}
        assert failure.message == "so" if alone else failure.message.endswith(": so")
    assert "exit code 3" in failure_of(ExitSummary(reason="exited", exit_code=3)).message


def test_service_time_stands_still_during_outages_and_jumps() -> None:
    clock, reachable = FakeClock(), [True]
    uptime = Uptime(clock, lambda: reachable[0], 100.0, longest_step_s=10.0)
    clock.advance(5)
    assert (uptime.now(), uptime.outages) == (105.0, 0)
    reachable[0] = False
    uptime.now()
    clock.advance(500)
    assert (uptime.now(), uptime.outages) == (105.0, 0)
    reachable[0] = True
    clock.advance(5)
    assert (uptime.now(), uptime.outages) == (105.0, 1)
    clock.advance(3600)
    assert (uptime.now(), uptime.outages) == (115.0, 2)


def test_settings_override_the_profile() -> None:
    assert Settings().limits().lease_s == 120
    assert Settings(time_profile="test").limits().lease_s == 4
    chosen = Settings(time_profile="test", lease_s=9, infra_retries=0).limits()
    assert (chosen.lease_s, chosen.infra_retries, chosen.cancel_s) == (9, 0, 5)


def test_an_executor_that_gives_less_is_not_asked_again_at_once() -> None:
    ledger = Ledger(None)
    ledger.hear(joined(), submitted(), submitted("r2"), image_ready("r1", "r2"))
    target = ledger.latest(PoolTargetSet)
    assert target.size == 2
    ledger.hear(scaled(target, size=1))
    assert ledger.run("r1").state == "Starting"
    assert ledger.names("r2")[-1] == "RunQueued"
    count = len(ledger.outbox())
    ledger.sweep_pools()
    assert len(ledger.outbox()) == count
    ledger.now += 31
    ledger.sweep_pools()
    assert ledger.latest(PoolTargetSet).size == 2
    assert ledger.names("r2")[-1] == "RunProvisioning"


def test_an_older_answer_is_ignored() -> None:
    ledger = Ledger(None)
    ledger.hear(joined(), submitted(), image_ready("r1"))
    first = ledger.latest(PoolTargetSet)
    ledger.hear(submitted("r2"), image_ready("r2"))
    second = ledger.latest(PoolTargetSet)
    assert second.generation > first.generation
    ledger.hear(scaled(second))
    before = ledger.run("r2")
    ledger.hear(scaled(first, size=0))
    assert ledger.run("r2") == before
    assert ledger.read(lambda conn: len(_nodes(conn))) == 2


def test_a_new_store_goes_on_with_newer_generations() -> None:
    ledger = Ledger(None)
    ledger.hear(joined(), submitted(), image_ready("r1"))
    assert ledger.latest(PoolTargetSet).generation > 1_700_000_000


def test_a_slot_is_given_on_in_the_transaction_that_freed_it() -> None:
    ledger = Ledger(None)
    ledger.hear(joined(max_nodes=1), submitted(), image_ready("r1"))
    ledger.hear(scaled(ledger.latest(PoolTargetSet)))
    ledger.hear(submitted("r2"), image_ready("r2"))
    assert ledger.run("r2").state == "Queued"
    ledger.hear(exited())
    assert ledger.names("r2")[-1] == "RunAssigned"
    assert [type(e.event).__name__ for e in ledger.outbox()][-2:] == [
        "RunFinalizing",
        "RunAssigned",
    ]


def test_no_statement_of_the_hot_path_walks_all_runs() -> None:
    ledger = Ledger(None)
    seen: set[str] = set()

    def remember(statement: str) -> None:
        if "runs" in statement and not statement.startswith("INSERT"):
            seen.add(statement)

    with ledger.engine.connect() as conn:
        conn.connection.driver_connection.set_trace_callback(remember)  # type: ignore[union-attr]
    ledger.hear(joined(), submitted(), submitted("r2", priority=60, resources={"gpus": 1}))
    ledger.hear(image_ready("r1", "r2"))
    ledger.hear(scaled(ledger.latest(PoolTargetSet)), exited())
    ledger.tick(40)
    ledger.sweep_pools()
    assert len(seen) >= 8
    for statement in sorted(seen):
        with ledger.engine.connect() as conn:
            plan = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}").all()
        assert not [row for row in plan if row[3].startswith("SCAN runs")], (statement, plan)


def _nodes(conn: object) -> list[object]:
    from stellwerk_scheduler import pool_rows

    return list(pool_rows.nodes_of(conn, pool_name="local"))  # type: ignore[arg-type]
