"""Every row of the state machine's table, and each row under five kinds of trouble.

A row is what was said before, a trigger, and the events that the trigger alone brings about.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from ledger import LIMITS, Ledger
from scripted_facts import (
    archived,
    dataset_ready,
    exited,
    image_ready,
    joined,
    scaled,
    started,
    submitted,
)
from sqlalchemy import update

from stellwerk.events import (
    ArchiveFailed,
    DatasetFailed,
    Event,
    ImageFailed,
    NodeDraining,
    PoolTargetSet,
    RunAssigned,
    RunCancelRequested,
    RunEndReported,
    RunFinalizing,
    RunPreparing,
    RunStopRequested,
)
from stellwerk.runstate import RunStatus
from stellwerk_scheduler import run_rows
from stellwerk_scheduler.leases import Leases
from stellwerk_scheduler.store import Work
from stellwerk_scheduler.tables import pools, runs

S = RunStatus
Step = Callable[[Ledger], None]
EXECUTOR = joined()
CANCEL = RunCancelRequested(run_id="r1", reason="enough")
RAN = runs.c.run_id == "r1"


def say(*facts: Event) -> Step:
    return lambda ledger: ledger.hear(*facts)


def after(seconds: float) -> Step:
    return lambda ledger: ledger.tick(seconds)


def nodes_come(ledger: Ledger) -> None:
    wanted = [e.event for e in ledger.outbox() if isinstance(e.event, PoolTargetSet)]
    if wanted:
        ledger.hear(scaled(wanted[-1]))


def low_priority(ledger: Ledger) -> None:
    ledger.write(lambda tx: tx.conn.execute(update(pools).values(vm_priority="lowpriority")))


def lease_lost(attempt: int = 1) -> Step:
    return lambda ledger: ledger.lease_expires("r1", attempt)


WITH_DATA = {"inputs": {"data": {"dataset": "d"}}}
SUBMIT = say(submitted())
PREPARED = say(image_ready("r1"))
QUEUED = (SUBMIT, PREPARED)
PROVISIONING = (say(EXECUTOR), *QUEUED)
STARTING = (*PROVISIONING, nodes_come)
RUNNING = (*STARTING, say(started()))
FINALIZING = (*RUNNING, say(exited()))
LOST_ONCE = (*RUNNING, lease_lost())
FAIL = RunCancelRequested(run_id="r1", outcome="Failed", code="c", reason="bad data")
CLIENT_DRIVES = {"kind": "interactive", "source": None, "script": None}
BEGUN = (say(submitted(**CLIENT_DRIVES)),)
ENDED = say(RunEndReported(run_id="r1", outcome="Completed", outputs_manifest="b" * 64))
BROKEN = say(RunEndReported(run_id="r1", outcome="Failed", code="c", message="m"))
SPENT = (
    *LOST_ONCE,
    after(100), say(started(attempt=2)), lease_lost(2),
    after(100), say(started(attempt=3)), lease_lost(3),
    after(100), say(started(attempt=4)),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    number: str
    given: tuple[Step, ...]
    trigger: Step
    emits: tuple[str, ...]
    state: RunStatus


ROWS = (
    Row("1-2 submitted", (), SUBMIT, ("RunPreparing",), S.PREPARING),
    Row("2 refused", (), say(submitted(target="no")), ("RunFailed",), S.FAILED),
    Row("3 one build for all", (say(submitted("r2")), SUBMIT), say(image_ready("r2", "r1")), ("RunQueued",), S.QUEUED),
    Row("4 first need", (say(submitted(**WITH_DATA)),), PREPARED, (), S.PREPARING),
    Row("4 last need", (say(submitted(**WITH_DATA)), PREPARED), say(dataset_ready()), ("RunQueued",), S.QUEUED),
    Row("5 image", (SUBMIT,), say(ImageFailed(env_id="e", run_ids=("r1",), reason="your-spec", message="no")), ("RunFailed",), S.FAILED),
    Row("5 dataset", (say(submitted(**WITH_DATA)),), say(DatasetFailed(run_id="r1", input="data", code="c", message="m")), ("RunFailed",), S.FAILED),
    Row("5 deadline", (SUBMIT,), after(7200), ("RunFailed",), S.FAILED),
    Row("6 no capacity", QUEUED, say(EXECUTOR), ("RunProvisioning",), S.PROVISIONING),
    Row("7-8 nodes come", PROVISIONING, nodes_come, ("RunAssigned",), S.STARTING),
    Row("8 a slot is free", (*FINALIZING[:4], say(submitted("r2"), image_ready("r2"))), say(exited(reason="exited", code=3)), ("RunFinalizing",), S.FINALIZING),
    Row("9 said again", STARTING, after(30), (), S.STARTING),
    Row("10 started", STARTING, say(started()), ("RunStarted",), S.RUNNING),
    Row("11 time in a running run", RUNNING, after(1000), (), S.RUNNING),
    Row("12 exit 0", RUNNING, say(exited()), ("RunFinalizing",), S.FINALIZING),
    Row("12 exit before start", STARTING, say(exited()), ("RunFinalizing",), S.FINALIZING),
    Row("13 archived", FINALIZING, say(archived()), ("RunCompleted",), S.COMPLETED),
    Row("14 not archived", FINALIZING, say(ArchiveFailed(run_id="r1", attempt=1, code="c", message="m")), ("RunFailed",), S.FAILED),
    Row("14 deadline", FINALIZING, after(3600), ("RunFailed",), S.FAILED),
    Row("15 user's retry", (say(EXECUTOR, submitted(max_retries=1)), PREPARED, nodes_come, say(started())), say(exited(code=3)), ("RunRetrying",), S.QUEUED),
    Row("15 our retry", RUNNING, say(exited(reason="shim-lost", code=None)), ("RunRetrying",), S.QUEUED),
    Row("15 environment gone", STARTING, say(exited(reason="environment-missing", code=None)), ("RunRetrying", "RunPreparing"), S.PREPARING),
    Row("15 next attempt", (*RUNNING, say(exited(reason="shim-lost", code=None))), after(2), ("RunAssigned",), S.STARTING),
    Row("16 exit 3", RUNNING, say(exited(code=3)), ("RunFinalizing",), S.FINALIZING),
    Row("16 archived", (*RUNNING, say(exited(code=3))), say(archived()), ("RunFailed",), S.FAILED),
    Row("17 cancel running", RUNNING, say(CANCEL), ("RunStopRequested",), S.RUNNING),
    Row("17 cancel starting", STARTING, say(CANCEL), ("RunStopRequested",), S.STARTING),
    Row("17 said again", (*RUNNING, say(CANCEL)), after(2), ("RunStopRequested",), S.RUNNING),
    Row("18 cancel preparing", (SUBMIT,), say(CANCEL), ("RunCanceled",), S.CANCELED),
    Row("18 cancel queued", QUEUED, say(CANCEL), ("RunCanceled",), S.CANCELED),
    Row("18 cancel provisioning", PROVISIONING, say(CANCEL), ("RunCanceled",), S.CANCELED),
    Row("18 cancel before retry", LOST_ONCE, say(CANCEL), ("RunCanceled",), S.CANCELED),
    Row("18 fail queued", QUEUED, say(FAIL), ("RunFailed",), S.FAILED),
    Row("18 fail running", RUNNING, say(FAIL), ("RunStopRequested",), S.RUNNING),
    Row("18 failed", (*RUNNING, say(FAIL), say(exited(reason="canceled", code=None))), say(archived()), ("RunFailed",), S.FAILED),
    Row("18 fail lost", (*RUNNING, say(FAIL), lease_lost()), say(archived()), ("RunFailed",), S.FAILED),
    Row("18 fail too late", (*FINALIZING, say(FAIL)), say(archived()), ("RunCompleted",), S.COMPLETED),
    Row("18 stopped", (*RUNNING, say(CANCEL)), say(exited(reason="canceled", code=None)), ("RunFinalizing",), S.FINALIZING),
    Row("18 archived", (*RUNNING, say(CANCEL), say(exited(reason="canceled", code=None))), say(archived()), ("RunCanceled",), S.CANCELED),
    Row("18 never stopped", (*RUNNING, say(CANCEL)), after(90), ("RunFinalizing",), S.FINALIZING),
    Row("18 lost meanwhile", (*RUNNING, say(CANCEL)), lease_lost(), ("AttemptLost", "RunFinalizing"), S.FINALIZING),
    Row("19 exit first", FINALIZING, say(CANCEL), (), S.FINALIZING),
    Row("19 then completed", (*FINALIZING, say(CANCEL)), say(archived()), ("RunCompleted",), S.COMPLETED),
    Row("19 cancel first", (*RUNNING, say(CANCEL)), say(exited()), ("RunFinalizing",), S.FINALIZING),
    Row("20-21 lost", RUNNING, lease_lost(), ("AttemptLost", "RunRetrying"), S.QUEUED),
    Row("21 for good", SPENT, lease_lost(4), ("AttemptLost", "RunFinalizing"), S.FINALIZING),
    Row("22 zombie starts", (*STARTING, lease_lost()), say(started(executor="ghost")), ("RunStopRequested",), S.QUEUED),
    Row("22 zombie exits", LOST_ONCE, say(exited()), (), S.QUEUED),
    Row("23 drain keeps", RUNNING, say(NodeDraining(executor_id="x1", boot_id=EXECUTOR.boot_id, reason="r")), (), S.RUNNING),
    Row("23 drain moves", (low_priority, *RUNNING), say(NodeDraining(executor_id="x1", boot_id=EXECUTOR.boot_id, reason="r")), ("RunStopRequested",), S.RUNNING),
    Row("24 terminal", (*FINALIZING, say(archived())), say(CANCEL, exited(code=1), started(), image_ready("r1", build=2)), (), S.COMPLETED),
    Row("25 preparing again", (SUBMIT,), after(30), (), S.PREPARING),
    Row("25 starting", STARTING, after(300), ("RunStopRequested", "RunRetrying"), S.QUEUED),
    Row("25 running", (say(EXECUTOR, submitted(max_duration_s=100)), PREPARED, nodes_come, say(started())), after(190), ("RunStopRequested",), S.RUNNING),
    Row("25 running, ignored", (say(EXECUTOR, submitted(max_duration_s=100)), PREPARED, nodes_come, say(started()), after(190)), after(90), ("RunFinalizing",), S.FINALIZING),
    Row("26 a client begins", (), BEGUN[0], ("RunStarted",), S.RUNNING),
    Row("26 time passes", BEGUN, after(1000), (), S.RUNNING),
    Row("26 its client ends it", BEGUN, ENDED, ("RunFinalizing",), S.FINALIZING),
    Row("26 archived", (*BEGUN, ENDED), say(archived()), ("RunCompleted",), S.COMPLETED),
    Row("26 its client failed", (*BEGUN, BROKEN), say(archived()), ("RunFailed",), S.FAILED),
    Row("26 ends once", (*BEGUN, ENDED), BROKEN, (), S.FINALIZING),
    Row("26 cancel", BEGUN, say(CANCEL), ("RunFinalizing",), S.FINALIZING),
    Row("26 canceled", (*BEGUN, say(CANCEL)), say(archived()), ("RunCanceled",), S.CANCELED),
    Row("26 its client is gone", BEGUN, after(30 * 24 * 3600), ("RunFinalizing",), S.FINALIZING),
    Row("26 a script has no client", RUNNING, ENDED, (), S.RUNNING),
    Row("25 finalizing again", FINALIZING, after(30), (), S.FINALIZING),
)  # fmt: skip

ROW = pytest.mark.parametrize("row", ROWS, ids=lambda row: row.number.replace(" ", "-"))


def given(row: Row, path: Path | None) -> Ledger:
    ledger = Ledger(path)
    for step in row.given:
        step(ledger)
    return ledger


def known(ledger: Ledger) -> list[str]:
    try:
        return ledger.names()
    except AssertionError:
        return []


def finish(ledger: Ledger) -> None:
    """Whatever state the run is in, the right facts end it."""
    ledger.repeats += 1000
    for _ in range(40):
        run = ledger.run()
        if run.terminal:
            return
        ledger.repeats += 1
        match run.state:
            case S.PREPARING:
                ledger.hear(image_ready("r1"), dataset_ready())
            case S.QUEUED | S.PROVISIONING:
                ledger.hear(joined(max_nodes=8))
                nodes_come(ledger)
                ledger.tick(200)
            case S.RUNNING if run.spec.interactive:
                ENDED(ledger)
            case S.STARTING | S.RUNNING:
                ledger.hear(exited(attempt=run.attempt))
            case S.FINALIZING:
                ledger.hear(archived(attempt=run.attempt))
    raise AssertionError(f"run is still {ledger.run().state}")


@ROW
def test_row(row: Row) -> None:
    ledger = given(row, None)
    before = len(ledger.emitted())
    row.trigger(ledger)
    assert ledger.names()[before:] == list(row.emits)
    assert ledger.run().state == row.state
    ledger.check()


@ROW
@pytest.mark.parametrize("same_id", [True, False], ids=["inbox", "row-guard"])
def test_duplicate_trigger_changes_nothing(row: Row, same_id: bool) -> None:
    ledger = given(row, None)
    row.trigger(ledger)
    before, events = ledger.run(), ledger.names()
    ledger.repeats, ledger.frozen = 0 if same_id else 1, True
    row.trigger(ledger)
    again = [name for name in ledger.names()[len(events) :] if name != "RunStopRequested"]
    assert again == []
    assert replace(ledger.run(), sequence=0) == replace(before, sequence=0)
    ledger.check()


@ROW
@pytest.mark.parametrize("number", [-1, 99], ids=["older", "unknown"])
def test_facts_of_another_attempt_change_nothing(row: Row, number: int) -> None:
    ledger = given(row, None)
    try:
        before = ledger.run()
    except AssertionError:
        pytest.skip("no run yet")
    stale = max(0, before.attempt + number) if number < 0 else number
    ledger.repeats = 7
    if stale:
        ledger.hear(started(attempt=stale), exited(attempt=stale, code=9))
        ledger.hear(archived(attempt=stale))
        ledger.lease_expires("r1", stale)
    ledger.repeats = 0
    assert replace(ledger.run(), sequence=0) == replace(before, sequence=0)
    count = len(ledger.emitted())
    row.trigger(ledger)
    assert ledger.names()[count:] == list(row.emits)
    assert ledger.run().state == row.state
    ledger.check()


@ROW
def test_crash_after_commit_before_publish(row: Row, tmp_path: Path) -> None:
    ledger = given(row, tmp_path / "db")
    before = len(ledger.outbox())
    row.trigger(ledger)
    told = [(e.id, e.event) for e in ledger.outbox()]
    reborn = ledger.crash()
    assert [(e.id, e.event) for e in reborn.outbox()] == told
    assert len(told) - before >= len(row.emits)
    reborn.check()
    finish(reborn)
    reborn.check()


@ROW
def test_crash_after_publish_before_acknowledgement(row: Row, tmp_path: Path) -> None:
    ledger = given(row, tmp_path / "db")
    row.trigger(ledger)
    run, told = ledger.run(), [e.id for e in ledger.outbox()]
    reborn = ledger.crash()
    reborn.frozen = True
    row.trigger(reborn)
    assert reborn.run() == run
    assert [e.id for e in reborn.outbox()] == told
    reborn.frozen = False
    finish(reborn)


@ROW
def test_trigger_before_the_fact_that_leads_to_it(row: Row) -> None:
    if not row.given:
        pytest.skip("nothing comes before")
    ledger = Ledger(None)
    *early, last = row.given
    for step in early:
        step(ledger)
    row.trigger(ledger)
    last(ledger)
    ledger.repeats = 1
    row.trigger(ledger)
    if not known(ledger):
        ledger.hear(submitted())
    ledger.check()
    finish(ledger)
    ledger.check()


def test_what_is_said_again_has_the_same_number_and_content() -> None:
    for given_steps, cls in (
        ((SUBMIT,), RunPreparing),
        (STARTING, RunAssigned),
        (FINALIZING, RunFinalizing),
    ):
        ledger = Ledger(None)
        for step in given_steps:
            step(ledger)
        for seconds in (30, 60):
            ledger.tick(seconds)
        said = [e for e in ledger.outbox() if isinstance(e.event, cls)]
        assert len(said) == 3
        assert len({(e.id, e.sequence) for e in said}) == 1
        assert said[0].event == said[1].event == said[2].event


def test_every_state_but_the_queue_ends_by_time_alone() -> None:
    for steps in ((SUBMIT,), STARTING, RUNNING, FINALIZING, (*RUNNING, say(CANCEL)), BEGUN):
        ledger = Ledger(None)
        for step in steps:
            step(ledger)
        ledger.now += 40 * 24 * 3600
        for _ in range(60):
            ledger.tick(10_000)
        run = ledger.run()
        assert run.terminal, run.state
        ledger.check()


@pytest.mark.parametrize(
    ("end", "state"),
    [(exited(), S.COMPLETED), (exited(code=3), S.FAILED), (CANCEL, S.CANCELED)],
    ids=["completed", "failed", "canceled"],
)
def test_what_a_script_drove_ends_with_it(end: Event, state: RunStatus) -> None:
    ledger = Ledger(None)
    for step in RUNNING:
        step(ledger)
    child = submitted("r2", **CLIENT_DRIVES).model_copy(update={"parent_run_id": "r1"})
    ledger.hear(child, submitted("r3", **CLIENT_DRIVES))
    ledger.hear(end, exited(reason="canceled", code=None) if end is CANCEL else end, archived())
    assert ledger.run().state == state
    assert ledger.run("r2").state == S.FINALIZING
    ledger.hear(archived("r2"))
    assert [ledger.run(run).state for run in ("r2", "r3")] == [state, S.RUNNING]
    ledger.check()


def test_what_a_notebook_drives_is_its_own_business() -> None:
    ledger = Ledger(None)
    child = submitted("r2", **CLIENT_DRIVES).model_copy(update={"parent_run_id": "r1"})
    for step in (*BEGUN, say(child), ENDED, say(archived())):
        step(ledger)
    assert [ledger.run(run).state for run in ("r1", "r2")] == [S.COMPLETED, S.RUNNING]


@pytest.mark.parametrize(
    "steps", [(*FINALIZING, say(archived())), (SUBMIT, say(CANCEL))], ids=["completed", "canceled"]
)
def test_the_row_of_an_ended_run_goes_at_last_and_its_id_stays_taken(
    steps: tuple[Step, ...],
) -> None:
    ledger = Ledger(None)
    for step in steps:
        step(ledger)
    ledger.hear(submitted("r2"))
    ledger.tick(LIMITS.kept_s - 1)
    assert ledger.run().terminal
    ledger.tick(1)
    told = ledger.names()
    with pytest.raises(AssertionError):
        ledger.run()
    ledger.check()
    ledger.repeats = 1
    ledger.hear(submitted(), CANCEL, image_ready("r1"), started(), exited(), archived())
    assert ledger.names() == told
    ledger.tick(LIMITS.kept_s)
    with pytest.raises(AssertionError):
        ledger.run()


def test_a_run_that_ends_while_its_time_was_looked_at_is_not_forgotten() -> None:
    """What is due is read before it is acted upon, and a fact may come in between."""
    ledger = Ledger(None)
    for step in FINALIZING:
        step(ledger)
    ledger.now += LIMITS.resend_s
    (due,) = ledger.read(lambda conn: run_rows.due(conn, ledger.now, 100))
    ledger.hear(archived())
    ledger.write(lambda tx: ledger.store.tick(Work(tx, ledger.now), due))
    assert ledger.run().state == S.COMPLETED


def test_rows_of_an_earlier_release_that_never_had_a_time_go_too() -> None:
    ledger = Ledger(None)
    for step in (*FINALIZING, say(archived(), submitted("r2"))):
        step(ledger)
    without = {"deadline": None, "wake_at": None}
    ledger.write(lambda tx: tx.conn.execute(update(runs).where(RAN).values(without)))
    ledger.tick(LIMITS.kept_s)
    before = ledger.run("r2")
    until = ledger.now + LIMITS.kept_s
    for _ in range(2):  # a second start changes nothing
        ledger.write(lambda tx, at=until: run_rows.keep_ended_until(tx.conn, at))
        until += 1
    assert ledger.run("r2") == before
    ledger.tick(LIMITS.kept_s - 1)
    assert ledger.run().terminal
    ledger.tick(1)
    with pytest.raises(AssertionError):
        ledger.run()


def test_time_to_start_grows_with_the_inputs() -> None:
    deadlines = []
    for size in (0, 5_000_000_000):
        ledger = Ledger(None)
        ledger.hear(EXECUTOR, submitted(**WITH_DATA), image_ready("r1"), dataset_ready(size=size))
        nodes_come(ledger)
        deadlines.append(ledger.run().deadline or 0.0)
    assert deadlines[1] - deadlines[0] == 1000


def test_leases_expire_once_and_are_condemned() -> None:
    leases, key = Leases(10.0), ("r1", 1)
    assert leases.expired([key], 0.0) == []
    assert leases.renew(key, 5.0)
    assert leases.expired([key], 14.9) == []
    assert leases.expired([key], 15.0) == [key]
    assert not leases.renew(key, 15.1)
    assert leases.expired([], 15.2) == []
    assert leases.renew(key, 15.3)
    leases.grace(20.0)
    assert leases.expired([key], 29.9) == []


def test_stop_names_the_attempt_of_the_zombie() -> None:
    ledger = Ledger(None)
    for step in (*STARTING, lease_lost()):
        step(ledger)
    ledger.hear(started(executor="ghost"))
    stop = ledger.latest(RunStopRequested)
    assert (stop.attempt, stop.executor_id, stop.reason) == (1, "ghost", "superseded")
    assert LIMITS.infra_retries == 3
