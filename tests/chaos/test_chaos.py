"""kill -9 of each part at each phase of a run: the run still ends correctly, once, with all it left.

A cell is (part, phase). The seed decides the delay between the phase's sign and the kill;
``STELLWERK_CHAOS=full`` runs all cells (``make chaos``), otherwise a chosen few. A red cell
leaves its stack's logs under ``chaos-artifacts/``.
"""

import asyncio
import hashlib
import os
import random
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from stack import Stack, log_text, request, run_body, stream_events, wait_terminal

from stellwerk.events import Event, RunSubmitted, decode
from stellwerk.runstate import RunStatus, replay

SEED = int(os.environ.get("STELLWERK_CHAOS_SEED", "20261124"))
PARTS = (
    "nats", "s3", "gateway", "scheduler", "environment-build", "dataset", "gpu-executor", "history", "model-registry",
)  # fmt: skip
PHASES = ("submitted", "preparing", "assigned", "started", "printing", "exited", "completed")
SHORT = {
    ("nats", "preparing"), ("nats", "printing"), ("s3", "assigned"), ("gateway", "submitted"), ("scheduler", "assigned"),
    ("scheduler", "exited"), ("environment-build", "preparing"), ("dataset", "preparing"), ("gpu-executor", "started"),
    ("gpu-executor", "printing"), ("history", "exited"), ("model-registry", "completed"),
}  # fmt: skip
CELLS = [
    pytest.param(part, phase, id=f"{part}@{phase}")
    for part in PARTS
    for phase in PHASES
    if os.environ.get("STELLWERK_CHAOS") == "full" or (part, phase) in SHORT
]
SIGNS = {
    "preparing": "sw.evt.run.{run}.preparing",
    "assigned": "sw.evt.run.{run}.assigned.*",
    "started": "sw.evt.attempt.{run}.started.*",
    "exited": "sw.evt.attempt.{run}.exited.*",
    "completed": "sw.evt.run.{run}.completed",
}
LINES = 400
SCRIPT = f"""
import os, sys, time
from stellwerk_agent import Run
run = Run.get_context()
data = open(sys.argv[1]).read()
for n in range({LINES}):
    print("line", n, flush=True)
    run.log("n", n)
    time.sleep(0.003)
os.makedirs("outputs", exist_ok=True)
for n in range(5):
    open(f"outputs/file-{{n}}.txt", "w").write(data * (n + 1))
print("end")
"""
EXPECTED_LOG = "".join(f"line {n}\n" for n in range(LINES)) + "end\n"
DATA = "some data\n"


@pytest.fixture(scope="module")
def chaos_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    stack = Stack(tmp_path_factory.mktemp("chaos"), STELLWERK_TIME_PROFILE="test")
    stack.up()
    with stack.http() as http:
        upload_dataset(http)
        compute = {
            "name": "chaos",
            "max_nodes": 2,
            "min_nodes": 1,
            "idle_seconds_before_scaledown": 600,
        }
        assert request("POST", http, "/compute", json=compute).status_code in {200, 201}
    yield stack
    if os.environ.get("STELLWERK_CHAOS_KEEP"):
        keep(stack, "all")
    stack.down()


def upload_dataset(http: httpx2.Client) -> None:
    digest = hashlib.sha256(DATA.encode()).hexdigest()
    plan = request(
        "POST", http, "/blobs", json={"blobs": [{"sha256": digest, "size": len(DATA)}]}
    ).json()
    for item in plan["missing"]:
        assert httpx2.put(item["url"], content=DATA.encode()).status_code == 200
    entry = {"path": "data.txt", "size": len(DATA), "sha256": digest}
    made = request(
        "POST", http, "/datasets", json={"source": {"kind": "files", "entries": [entry]}}
    ).json()
    done = request(
        "POST",
        http,
        f"/datasets/{made['dataset_id']}/register",
        json={"name": "chaos-data", "create_new_version": True},
    )
    assert done.status_code < 300, done.text


def keep(stack: Stack, name: str) -> None:
    target = Path("chaos-artifacts") / name
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(stack.home / "logs", target)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize(("part", "phase"), CELLS)
def test_cell(chaos_stack: Stack, part: str, phase: str) -> None:
    delay = random.Random(f"{SEED}/{part}/{phase}").uniform(0.0, 0.06)
    try:
        asyncio.run(cell(chaos_stack, part, phase, delay))
    except BaseException:
        keep(chaos_stack, f"{part}@{phase}")
        raise


async def cell(stack: Stack, part: str, phase: str, delay: float) -> None:
    run_id = f"{part}-{phase}-{random.Random().randrange(10**6)}"
    before = await asyncio.to_thread(running, stack, part)
    async with stack.bus() as bus:
        sign = asyncio.Event()

        async def seen(_message: Any) -> None:
            sign.set()

        if phase in SIGNS:
            await bus.subscribe(SIGNS[phase].format(run=run_id), cb=seen)
        elif phase == "printing":
            await bus.subscribe(f"sw.log.{run_id}.*.std", cb=seen)
        await bus.flush()
        body = run_body(
            SCRIPT, target="chaos", arguments=[{"input": "data"}],
            inputs={"data": {"dataset": "chaos-data"}},
            environment_variables={"CELL": run_id},
        )  # fmt: skip
        event = RunSubmitted.model_validate({"run_id": run_id, **body})
        headers = {
            "ce-id": event.event_id(),
            "ce-type": event.type_name(),
            "Nats-Msg-Id": event.event_id(),
        }
        await bus.jetstream().publish(event.subject(), event.data(), headers=headers)
        if phase != "submitted":
            await asyncio.wait_for(sign.wait(), 60)
        await asyncio.sleep(delay)
        stack.kill(part)
        await asyncio.to_thread(verify_run, stack, run_id)
        await verify_stream(stack, bus, run_id)
    await asyncio.to_thread(verify_restarted, stack, part, before)


def verify_run(stack: Stack, run_id: str) -> None:
    with stack.http() as http:
        view = wait_terminal(http, run_id, 60)
        assert view["status"] == "Completed", view
        assert log_text(http, run_id).decode() == EXPECTED_LOG
        files = {
            item["path"]: item
            for item in request("GET", http, f"/runs/{run_id}/files").json()["files"]
        }
        for n in range(5):
            digest = hashlib.sha256((DATA * (n + 1)).encode()).hexdigest()
            assert files[f"outputs/file-{n}.txt"]["sha256"] == digest
        points = request("GET", http, f"/runs/{run_id}/metrics?limit=1000").json()["points"]
        assert [point["value"] for point in points] == list(range(LINES))
        model = {"name": "chaos-model", "run_id": run_id, "path": "outputs"}
        registered = request("POST", http, "/models", json=model)
        assert registered.status_code in {200, 201}, registered.text
        assert registered.json()["files"] == 5


async def verify_stream(stack: Stack, bus: Any, run_id: str) -> None:
    facts = await stream_events(bus, run_id)
    numbers = [number for _, number, _ in facts]
    assert numbers == list(range(1, len(numbers) + 1)), numbers
    assert [verb for verb, _, _ in facts].count("completed") == 1
    js = bus.jetstream()
    first = await js.get_last_msg("SW_EVENTS", f"sw.evt.submission.{run_id}.submitted")
    events: list[Event] = [decode(first.subject, first.headers, first.data).event]
    subscription = await js.subscribe(f"sw.evt.run.{run_id}.>", ordered_consumer=True)
    for _ in facts:
        message = await subscription.next_msg(timeout=5)
        events.append(decode(message.subject, message.headers, message.data).event)
    await subscription.unsubscribe()
    assert replay(events).status == RunStatus.COMPLETED


def verify_restarted(stack: Stack, part: str, before: int) -> None:
    """The part is back, in a new process, and the platform answers."""
    running(stack, part, other_than=before)
    with stack.http() as http:
        assert request("GET", http, "/info").status_code == 200


def running(stack: Stack, part: str, other_than: int | None = None) -> int:
    """Process id of a part, once it is there."""
    end = time.monotonic() + 30
    while (pid := stack.processes().get(part)) in {None, other_than}:
        assert time.monotonic() < end, f"{part} was not restarted"
        time.sleep(0.05)
    return int(pid or 0)
