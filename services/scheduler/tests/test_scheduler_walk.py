"""Random walks: whatever comes in whatever order, the row is what its events say.

One walk over the pure decider alone, one over the transactions with several runs and nodes.
"""

import itertools
from dataclasses import replace
from typing import Any

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from ledger import Ledger, check_events
from scripted_facts import (
    IMAGE,
    archived,
    dataset_ready,
    exited,
    image_ready,
    joined,
    scaled,
    started,
    submitted,
)

from stellwerk.events import (
    ArchiveFailed,
    DatasetFailed,
    Event,
    ImageFailed,
    PoolTargetSet,
    RunCancelRequested,
)
from stellwerk.events.attempt import ExitReason
from stellwerk.runstate import PLACED, TERMINAL, RunStatus
from stellwerk_scheduler.domain import Situation, decide
from stellwerk_scheduler.facts import Drained, Fact, LeaseExpired, Tick
from stellwerk_scheduler.model import WAITING, Decision, Limits, Run, apply
from stellwerk_scheduler.placement import FreeNode, assign
from stellwerk_scheduler.retries import RULES

LIMITS = Limits()
REASONS: list[ExitReason] = sorted(RULES)
ATTEMPTS = st.integers(1, 4)
FACTS: st.SearchStrategy[Fact] = st.one_of(
    st.just(image_ready("r1")),
    st.just(dataset_ready()),
    st.just(DatasetFailed(run_id="r1", input="data", code="c", message="m")),
    st.just(ImageFailed(env_id="e", run_ids=("r1",), reason="internal", message="m")),
    st.builds(started, attempt=ATTEMPTS),
    st.builds(
        exited,
        attempt=ATTEMPTS,
        reason=st.sampled_from(REASONS),
        code=st.sampled_from([None, 0, 1, 137]),
    ),
    st.builds(archived, attempt=ATTEMPTS),
    st.builds(lambda n: ArchiveFailed(run_id="r1", attempt=n, code="c", message="m"), ATTEMPTS),
    st.builds(LeaseExpired, ATTEMPTS),
    st.just(Drained()),
)


class DeciderWalk(RuleBasedStateMachine):
    """Any fact at any time. At the end the run is canceled and time alone must end it."""

    def __init__(self) -> None:
        super().__init__()
        self.run = Run(submitted(max_retries=1, inputs={"data": {"dataset": "d"}}))
        self.events: list[Event] = []
        self.now = 0.0
        self.tell(self.run.submitted)

    def tell(self, fact: Fact) -> None:
        self.carry_out(decide(self.run, fact, Situation(self.now, LIMITS)))

    def carry_out(self, decisions: list[Decision]) -> None:
        was_terminal = self.run.terminal
        for decision in decisions:
            self.run = apply(self.run, decision)
            if decision.event is not None and not decision.repeat:
                self.events.append(decision.event)
        assert not (was_terminal and decisions)

    @rule(fact=FACTS)
    def hear(self, fact: Fact) -> None:
        self.tell(fact)

    @rule(fact=FACTS)
    def hear_twice(self, fact: Fact) -> None:
        self.tell(fact)
        before = self.run
        self.tell(fact)
        assert replace(self.run, sequence=0) == replace(before, sequence=0)

    @precondition(lambda self: self.run.state == RunStatus.PREPARING)
    @rule()
    def prepare(self) -> None:
        self.tell(image_ready("r1"))
        self.tell(dataset_ready())

    @precondition(lambda self: self.run.placeable)
    @rule()
    def place(self) -> None:
        self.carry_out([assign(self.run, FreeNode("n1", "x1"), self.now, LIMITS)])

    @rule(seconds=st.sampled_from([1.0, 40.0, 400.0, 10_000.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        for _ in range(3):
            self.tell(Tick())

    @rule()
    def cancel(self) -> None:
        self.tell(RunCancelRequested(run_id="r1"))

    @invariant()
    def row_is_what_the_events_say(self) -> None:
        check_events(self.run, self.events)
        assert self.run.sequence == len(self.events)

    @invariant()
    def every_state_has_a_way_out(self) -> None:
        run = self.run
        if run.state not in TERMINAL | WAITING:
            assert run.deadline is not None
        assert (run.node_id is not None) == (run.state in PLACED)
        assert run.state in {*WAITING, *TERMINAL} or run.not_before is None
        assert run.image == IMAGE or run.state not in {*WAITING, *PLACED, RunStatus.FINALIZING}

    def teardown(self) -> None:
        self.cancel()
        for _ in range(30):
            self.time_passes(10_000.0)
        assert self.run.terminal
        self.row_is_what_the_events_say()


class LedgerWalk(RuleBasedStateMachine):
    """Several runs on two executors. At the end everything works and all runs end."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger(None)
        self.count = 0
        self.answered = itertools.count()

    def hear(self, *facts: Event) -> None:
        self.ledger.repeats += 1
        self.ledger.hear(*facts)

    def some(self, number: int) -> str:
        return f"r{number % max(1, self.count)}"

    @precondition(lambda self: self.count < 6)
    @rule(
        priority=st.integers(0, 2),
        gpus=st.sampled_from([0, 0, 1, 2]),
        prepared=st.booleans(),
    )
    def submit(self, priority: int, gpus: int, prepared: bool) -> None:
        run_id = f"r{self.count}"
        self.count += 1
        self.hear(submitted(run_id, priority=priority, resources={"gpus": gpus}))
        if prepared:
            self.hear(image_ready(run_id))

    @rule(executor=st.sampled_from(["x1", "x2"]), keeps=st.booleans(), most=st.integers(1, 3))
    def executor_joins(self, executor: str, keeps: bool, most: int) -> None:
        mine = [node.node_id for node in self.ledger.read(_nodes) if node.executor_id == executor]
        have = {"local": tuple(mine)} if keeps and mine else {}
        self.hear(joined(executor, nodes=have, max_nodes=most))

    @rule(short=st.booleans())
    def executors_answer(self, short: bool) -> None:
        latest: dict[str, Any] = {}
        for envelope in self.ledger.outbox():
            if isinstance(envelope.event, PoolTargetSet):
                latest[envelope.event.executor_id] = envelope.event
        for target in latest.values():
            self.hear(scaled(target, size=max(0, target.size - int(short))))

    @rule(number=st.integers(0, 5), step=st.integers(0, 6), code=st.sampled_from([0, 1, None]))
    def a_run_goes_on(self, number: int, step: int, code: int | None) -> None:
        run_id = self.some(number)
        attempt = 1 + number % 2
        facts: list[Event] = [
            image_ready(run_id),
            started(run_id, attempt),
            exited(run_id, attempt, code=code),
            exited(run_id, attempt, reason="shim-lost", code=None),
            archived(run_id, attempt),
            RunCancelRequested(run_id=run_id),
            started(run_id, attempt + 1),
        ]
        self.hear(facts[step])

    @rule(number=st.integers(0, 5))
    def a_lease_expires(self, number: int) -> None:
        run_id = self.some(number)
        if self.count:
            run = self.ledger.run(run_id)
            self.ledger.lease_expires(run_id, run.attempt)
            if run.placed:
                self.ledger.write(
                    lambda tx: self.ledger.scaler.lost_attempt(
                        tx, run.node_id or "", run.executor_id or "", self.ledger.now
                    )
                )

    @rule(seconds=st.sampled_from([0.5, 5.0, 100.0]))
    def time_passes(self, seconds: float) -> None:
        self.ledger.tick(seconds)
        self.ledger.sweep_pools()

    @invariant()
    def everything_adds_up(self) -> None:
        self.ledger.check()

    def teardown(self) -> None:
        for _ in range(60):
            live = [r for r in map(self.ledger.run, self.ids()) if not r.terminal]
            if not live:
                return
            self.hear(joined("x1", max_nodes=3))
            self.time_passes(100.0)
            self.executors_answer(short=False)
            for run in live:
                now = self.ledger.run(run.run_id)
                if now.state == RunStatus.PREPARING:
                    self.hear(image_ready(now.run_id))
                elif now.placed:
                    self.hear(exited(now.run_id, now.attempt))
                elif now.state == RunStatus.FINALIZING:
                    self.hear(archived(now.run_id, now.attempt))
            self.ledger.check()
        raise AssertionError([(r.run_id, r.state) for r in live])

    def ids(self) -> list[str]:
        return [f"r{number}" for number in range(self.count)]


def _nodes(conn: Any) -> Any:
    from stellwerk_scheduler import pool_rows

    return pool_rows.nodes_of(conn, pool_name="local")


TestDeciderWalk = DeciderWalk.TestCase
TestDeciderWalk.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLedgerWalk = LedgerWalk.TestCase
TestLedgerWalk.settings = settings(
    max_examples=15,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
