"""The service on a real broker: whole runs by scripted facts, restarts, lost leases, cancels."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
import pytest_asyncio
from scripted_facts import World, exited, image_ready, joined, scaled, started, submitted

from stellwerk.api import ComputePatch, ComputeRequest, ComputeView, Page
from stellwerk.errors import ConflictError, NotFoundError, UserError
from stellwerk.events import (
    AttemptLost,
    NodeDraining,
    NodeLost,
    PoolTargetSet,
    RunAssigned,
    RunCanceled,
    RunCancelRequested,
    RunCompleted,
    RunFailed,
    RunFinalizing,
    RunProvisioning,
    RunQueued,
    RunRetrying,
    RunStarted,
    RunStopRequested,
)
from stellwerk_kit.bus import Bus
from stellwerk_kit.testing import NatsServer, wait_until
from stellwerk_kit.testing.fixtures import RuntimeFactory
from stellwerk_scheduler.app import build
from stellwerk_scheduler.settings import Settings
from stellwerk_scheduler.verbs import ConfirmReply, LeaseReply, QueueReply

Start = Callable[..., Awaitable[Any]]


@pytest_asyncio.fixture
async def world(bus: Bus) -> World:
    world = World(bus)
    await world.listen()
    return world


@pytest_asyncio.fixture
async def start(runtime_factory: RuntimeFactory, tmp_path: Path) -> AsyncIterator[Start]:
    async def start(**values: Any) -> Any:
        return await runtime_factory(
            "scheduler", Settings, build, data_dir=tmp_path / "scheduler", **values
        )

    yield start


async def renew(bus: Bus, run_id: str, attempt: int, executor: str = "x1") -> bool:
    lease = {"run_id": run_id, "attempt": attempt}
    request = {"executor_id": executor, "boot_id": "b", "leases": [lease]}
    reply = await bus.call("scheduler", "lease-renew", request, LeaseReply)
    return reply.leases[0].valid


async def queue(bus: Bus, run_id: str) -> Any:
    return (await bus.call("scheduler", "queue-get", {"run_id": run_id}, QueueReply)).queue


async def test_a_run_from_submission_to_completion(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await world.say(exited())
    done = await world.hear(RunCompleted, "r1")
    assert world.names() == [
        "RunPreparing", "RunQueued", "RunProvisioning", "RunAssigned", "RunStarted",
        "RunFinalizing", "RunCompleted",
    ]  # fmt: skip
    own = [e for e in world.heard if getattr(e.event, "run_id", None) == "r1"]
    assert [e.sequence for e in own] == list(range(1, 8))
    assert (done.env_id, done.outputs_manifest, done.attempt) == ("env-1", "a" * 64, 1)
    assert own[0].causation_id == "submission/r1/submitted"


async def test_queue_and_placement_are_one_commit(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    await world.say(joined(nodes={"local": ("local-0-x1",)}), submitted())
    await world.hear(RunStarted, "r1")
    queued, assigned = (
        next(e for e in world.heard if isinstance(e.event, cls)) for cls in (RunQueued, RunAssigned)
    )
    assert queued.time == assigned.time
    assert queued.causation_id == assigned.causation_id
    assert world.all(PoolTargetSet) == []


async def test_without_an_executor_a_run_says_so_and_starts_when_one_joins(
    world: World, start: Start
) -> None:
    await start()
    world.everybody_works()
    await world.say(submitted(), submitted("r2"))
    assert (await world.hear(RunQueued, "r1")).reason == "no-executor"
    view = await wait_until(lambda: queue(world.bus, "r2"))
    assert (view.reason, view.position) == ("no-executor", 2)
    assert "gpu-executor" in view.unblock
    await world.say(joined())
    await world.hear(RunStarted, "r1")
    await world.hear(RunStarted, "r2")
    assert await queue(world.bus, "r1") is None


async def test_a_full_pool_names_who_runs_and_goes_by_priority(world: World, start: Start) -> None:
    await start(local_max_nodes=1)
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await world.say(submitted("low", priority=10), submitted("high", priority=90))
    for run_id in ("low", "high"):
        await world.hear(RunQueued, run_id)
    low, high = await queue(world.bus, "low"), await queue(world.bus, "high")
    assert (high.position, low.position) == (1, 2)
    assert low.reason == "pool-full"
    assert "maximum of 1 nodes; 1 run is before it" in low.message
    assert "r1" in low.unblock
    await world.say(exited())
    await world.hear(RunStarted, "high")
    assert "RunStarted" not in world.names("low")


async def test_idle_nodes_are_given_back(world: World, start: Start) -> None:
    await start(local_idle_s=1)
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await world.say(exited())
    last = await world.hear(PoolTargetSet, count=2)
    assert (last.size, last.drain) == (0, ("local-0-x1",))

    async def empty() -> bool:
        view = await world.bus.call("scheduler", "compute-get", {"name": "local"}, ComputeView)
        return view.current_nodes == 0 and view.allocation_state == "Steady"

    await wait_until(empty)


async def test_a_lost_lease_is_retried_and_the_zombie_is_stopped(
    world: World, start: Start
) -> None:
    await start(lease_s=0.6)
    world.everybody_works()
    world.automatic[RunAssigned] = lambda e: None if e.attempt == 1 else started(e.run_id, 2)
    await world.say(joined(), submitted())
    await world.hear(RunAssigned, "r1")
    assert await renew(world.bus, "r1", 1)
    assert not await renew(world.bus, "r1", 1, "x2")
    assert not await renew(world.bus, "r1", 2)
    lost = await world.hear(AttemptLost, "r1")
    assert (lost.attempt, lost.node_id) == (1, "local-0-x1")
    assert (await world.hear(RunRetrying, "r1")).attempt == 2
    assert (await world.hear(NodeLost)).node_id == "local-0-x1"
    assert not await renew(world.bus, "r1", 1)
    await world.hear(RunStarted, "r1")
    await world.say(exited(attempt=1), started(attempt=1, executor="ghost"))
    stop = await world.hear(RunStopRequested, "r1")
    assert (stop.attempt, stop.executor_id, stop.reason) == (1, "ghost", "superseded")


async def test_infrastructure_retries_end(world: World, start: Start) -> None:
    await start(infra_retries=1)
    world.everybody_works()
    await world.say(joined(), submitted())
    for attempt in (1, 2):
        await world.hear(RunStarted, "r1", attempt)
        await world.say(exited(attempt=attempt, reason="shim-lost", code=None))
    failed = await world.hear(RunFailed, "r1")
    assert (failed.code, failed.attempt) == ("run.shim_lost", 2)
    assert failed.exit is not None


async def test_a_missing_environment_is_prepared_again(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await world.say(exited(reason="environment-missing", code=None))
    await world.hear(RunStarted, "r1", 2)
    names = world.names()
    assert names.count("RunPreparing") == 2
    assert names[5:7] == ["RunRetrying", "RunPreparing"]


async def test_cancel_before_placement_and_while_running(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    await world.say(submitted("waits"))
    await world.hear(RunQueued, "waits")
    await world.say(RunCancelRequested(run_id="waits", reason="not needed"))
    assert (await world.hear(RunCanceled, "waits")).message == "not needed"
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await world.say(RunCancelRequested(run_id="r1"))
    assert (await world.hear(RunFinalizing, "r1")).outcome == "Canceled"
    await world.hear(RunCanceled, "r1")


async def test_cancel_that_comes_first_is_remembered(world: World, start: Start) -> None:
    await start()
    await world.say(RunCancelRequested(run_id="r1", reason="early"))
    stream = await world.bus.js.stream_info("SW_EVENTS")
    assert stream.state.messages == 1

    async def handled() -> bool:
        info = await world.bus.js.consumer_info("SW_EVENTS", "scheduler-facts")
        return info.num_ack_pending == 0 and info.num_pending == 0

    await wait_until(handled)
    await world.say(submitted())
    assert (await world.hear(RunCanceled, "r1")).message == "early"
    assert world.names() == ["RunCanceled"]


async def test_a_stop_is_said_again_until_the_exit_and_ends_by_itself(
    world: World, start: Start
) -> None:
    await start(cancel_s=1.5)
    world.everybody_works()
    del world.automatic[RunStopRequested]
    await world.say(joined(), submitted(grace_s=0))
    await world.hear(RunStarted, "r1")
    await world.say(RunCancelRequested(run_id="r1"))
    await world.hear(RunStopRequested, "r1", 3)
    final = await world.hear(RunFinalizing, "r1")
    assert (final.outcome, final.exit) == ("Canceled", None)
    await world.hear(RunCanceled, "r1")


async def test_restart_in_the_middle(world: World, start: Start) -> None:
    first = await start()
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await first.stop()
    await world.say(exited(), submitted("r2"))
    await start()
    await world.hear(RunCompleted, "r1")
    await world.hear(RunStarted, "r2")
    assert world.names("r1").count("RunCompleted") == 1
    assert await renew(world.bus, "r2", 1)


async def test_repeated_and_unfit_submissions(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    await world.say(submitted("bad", target="nowhere"), submitted(), submitted())
    failed = await world.hear(RunFailed, "bad")
    assert failed.code == "compute.not_found"
    assert "There are local." in failed.message
    await world.say(joined())
    await world.say(submitted("gpus", resources={"gpus": 3}))
    too_big = await world.hear(RunFailed, "gpus")
    assert too_big.code == "resources.unsatisfiable"
    assert "spec.resources.gpus: asked for 3, there are 2 at most" in too_big.message
    await world.say(submitted("large", environment_variables={"X": "y" * 170_000}))
    assert (await world.hear(RunFailed, "large")).code == "spec.too_large"
    await world.hear(RunStarted, "r1")
    assert world.names("r1").count("RunPreparing") == 1


async def test_gpus_are_counted_and_nobody_starves(world: World, start: Start) -> None:
    await start(local_max_nodes=4)
    world.everybody_works()
    await world.say(joined(), submitted("a", resources={"gpus": 2}))
    await world.hear(RunStarted, "a")
    await world.say(submitted("b", resources={"gpus": 1}))
    await world.hear(RunQueued, "b")
    await world.say(submitted("c"))
    await world.hear(RunStarted, "c")
    view = await queue(world.bus, "b")
    assert view.reason == "resources-busy"
    assert "gpus: asked for 1, there are 0" in view.message
    await world.say(exited("a"))
    await world.hear(RunStarted, "b")


async def test_a_silent_executor_gets_nothing_more(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    del world.automatic[PoolTargetSet]
    await world.say(joined("dead"), submitted())
    asked = await world.hear(PoolTargetSet)
    assert (asked.executor_id, asked.size) == ("dead", 1)
    again = await world.hear(PoolTargetSet, count=2)
    assert (again.size, again.generation > asked.generation) == (1, True)

    async def given_up() -> bool:
        view = await queue(world.bus, "r1")
        return view is not None and view.reason == "no-executor"

    await wait_until(given_up, 15)
    await world.say(scaled(world.all(PoolTargetSet)[-1]))
    await world.hear(RunStarted, "r1")


async def test_an_executor_that_restarts_keeps_its_nodes(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    await world.say(joined(nodes={"local": ("local-0-x1",)}), submitted("r2"))
    await world.hear(RunStarted, "r2")
    assert world.all(PoolTargetSet)[-1].size == 2
    assert await renew(world.bus, "r1", 1)
    await world.say(exited())
    await world.hear(RunCompleted, "r1")


async def test_draining_moves_preemptible_runs(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    world.automatic[RunStopRequested] = lambda e: exited(e.run_id, e.attempt, "superseded", None)
    await world.bus.call(
        "scheduler", "compute-create",
        ComputeRequest(name="spot", max_nodes=2, vm_priority="lowpriority"), ComputeView,
    )  # fmt: skip
    leaving = joined()
    await world.say(leaving, submitted(target="spot"))
    await world.hear(RunStarted, "r1")
    await world.say(NodeDraining(executor_id="x1", boot_id=leaving.boot_id, reason="update"))
    assert (await world.hear(RunRetrying, "r1")).reason == "run.superseded"
    await world.say(joined("x2"))
    assert (await world.hear(RunAssigned, "r1", 2)).executor_id == "x2"


async def test_deadline_of_preparing(world: World, start: Start) -> None:
    await start(prepare_s=0.5)
    await world.say(submitted(inputs={"data": {"dataset": "d"}}))
    await world.say(image_ready("r1"))
    failed = await world.hear(RunFailed, "r1")
    assert failed.code == "timeout.preparing"
    assert failed.message == "not prepared within 0.5 s: dataset not ready"


async def test_leases_survive_a_broker_outage_over_http(
    world: World, start: Start, nats_server: NatsServer
) -> None:
    service = await start(lease_s=1.5)
    world.everybody_works()
    await world.say(joined(), submitted())
    await world.hear(RunStarted, "r1")
    nats_server.kill()
    await wait_until(lambda: not service.bus.connected)
    body = {"executor_id": "x1", "boot_id": "b", "leases": [{"run_id": "r1", "attempt": 1}]}
    base = f"http://127.0.0.1:{service.operations.port}"
    began = service.clock.monotonic()
    async with httpx2.AsyncClient(base_url=base, trust_env=False) as client:

        async def outlasted() -> bool:
            reply = await client.post("/leases/renew", json=body)
            assert LeaseReply.model_validate_json(reply.content).leases[0].valid
            return service.clock.monotonic() - began > 1.8

        await wait_until(outlasted)
        wrong = await client.post("/leases/renew", json={})
        assert (wrong.status_code, wrong.json()["code"]) == (422, "invalid")
        assert (await client.get("/leases/renew")).status_code == 405
        confirm = {"run_id": "r1", "attempt": 1, "executor_id": "x1"}
        reply = await client.post("/attempts/confirm", json=confirm)
        assert ConfirmReply.model_validate_json(reply.content).valid
    nats_server.start()
    await wait_until(lambda: service.bus.connected)
    await wait_until(lambda: world.bus.connected)
    await world.say(exited())

    async def finalizing() -> Any:
        await renew(world.bus, "r1", 1)
        return await world.bus.last_event("sw.evt.run.r1.finalizing")

    # The script's own subscription does not survive the broker: look at the stream instead.
    final = await wait_until(finalizing)
    assert final.event.outcome == "Completed"
    assert await world.bus.last_event("sw.evt.run.r1.attempt-lost") is None


async def test_lease_pages_check_the_executor(start: Start, bus: Bus, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    tokens.write_text('{"x1": "secret"}')
    service = await start(executor_tokens=tokens)
    body = {"run_id": "r1", "attempt": 1, "executor_id": "x1"}
    base = f"http://127.0.0.1:{service.operations.port}"
    async with httpx2.AsyncClient(base_url=base, trust_env=False) as client:
        for headers, status in (
            ({}, 401),
            ({"authorization": "Bearer wrong"}, 401),
            ({"authorization": "Bearer secret"}, 200),
        ):
            reply = await client.post("/attempts/confirm", json=body, headers=headers)
            assert reply.status_code == status


async def test_clusters(world: World, start: Start) -> None:
    await start()
    world.everybody_works()
    bus = world.bus
    request = ComputeRequest(name="cpu-cluster", max_nodes=4, tags={"a": "b"})
    made = await bus.call("scheduler", "compute-create", request, ComputeView)
    assert made.message == "no executor provides nodes for this cluster"
    assert await bus.call("scheduler", "compute-create", request, ComputeView) == made
    other = ComputeRequest(name="cpu-cluster", max_nodes=3)
    with pytest.raises(ConflictError, match="other settings"):
        await bus.call("scheduler", "compute-create", other, ComputeView)
    wrong = ComputeRequest(name="w", min_nodes=9, max_nodes=3)
    with pytest.raises(UserError, match="min_nodes: got 9"):
        await bus.call("scheduler", "compute-create", wrong, ComputeView)
    page = await bus.call("scheduler", "compute-list", {"limit": 1}, Page[ComputeView])
    assert ([c.name for c in page.items], page.next_cursor) == (["cpu-cluster"], "cpu-cluster")
    rest = {"limit": 1, "cursor": page.next_cursor}
    page = await bus.call("scheduler", "compute-list", rest, Page[ComputeView])
    assert ([c.name for c in page.items], page.next_cursor) == (["local"], None)

    await world.say(joined())
    patch = {"name": "cpu-cluster", "patch": ComputePatch(min_nodes=2).model_dump()}
    await bus.call("scheduler", "compute-update", patch, ComputeView)
    await wait_until(lambda: any(t.size == 2 for t in world.all(PoolTargetSet)))

    async def idle() -> Any:
        view = await bus.call("scheduler", "compute-get", {"name": "cpu-cluster"}, ComputeView)
        return view if [n.state for n in view.nodes] == ["idle", "idle"] else None

    view = await wait_until(idle)
    assert (view.current_nodes, view.allocation_state) == (2, "Steady")
    await world.say(submitted(target="cpu-cluster"))
    await world.hear(RunStarted, "r1")
    with pytest.raises(ConflictError, match="1 runs that have not ended"):
        await bus.call("scheduler", "compute-delete", {"name": "cpu-cluster"}, ComputeView)
    await world.say(exited())
    await world.hear(RunCompleted, "r1")
    await bus.call("scheduler", "compute-delete", {"name": "cpu-cluster"}, ComputeView)
    with pytest.raises(NotFoundError, match="There are local"):
        await bus.call("scheduler", "compute-get", {"name": "cpu-cluster"}, ComputeView)
    await wait_until(lambda: world.all(PoolTargetSet)[-1].size == 0)
    with pytest.raises(ConflictError, match="built in"):
        await bus.call("scheduler", "compute-delete", {"name": "local"}, ComputeView)
    assert "RunProvisioning" not in world.names()
    assert world.all(RunProvisioning) == []
