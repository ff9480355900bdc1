"""What clients log into runs, and many values at once, on a real broker and a real object store."""

import json
from typing import Any

import pytest
from history_setup import Sim, Start, completed

from stellwerk import events as e
from stellwerk import ids, subjects
from stellwerk.answers import FileList, MetricList, SeriesPage
from stellwerk.errors import NotFoundError, UserError
from stellwerk.runspec import RunSpec
from stellwerk_history.queries import REPLY_BYTES
from stellwerk_history.verbs import AncestorsReply, SeenReply

INTERACTIVE = RunSpec(kind="interactive")


def loss(value: float) -> dict[str, Any]:
    return {"k": "metric", "n": "loss", "t": "scalar", "v": value, "s": None, "ts": 1.0}


async def begin(sim: Sim, parent: str | None = None) -> str:
    run_id = ids.new_id()
    await sim.say(
        e.RunSubmitted(run_id=run_id, experiment="e", spec=INTERACTIVE, parent_run_id=parent),
        e.RunStarted(run_id=run_id, attempt=1),
    )
    await sim.events(run_id, "RunStarted")
    return run_id


async def write(sim: Sim, run_id: str, writer: str, first: int, *records: dict[str, Any],
                again: str = "") -> int:  # fmt: skip
    content = {"writer": writer, "first": first, "records": records}
    body = json.dumps(content, ensure_ascii=False).encode()
    headers = {"Nats-Msg-Id": f"metric/{run_id}/1/{writer}/{first}-{len(records)}{again}"}
    done = await sim.bus.publish_raw(subjects.metric(run_id, 1), body, headers)
    return done.sequence


async def seen(sim: Sim, run_id: str, position: int) -> None:
    fields = {"run_id": run_id, "position": position, "wait_s": 10}
    assert (await sim.ask("records-seen", SeenReply, **fields)).seen


async def values(sim: Sim, run_id: str, **fields: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    cursor = None
    while True:
        page = await sim.ask("metric-series", SeriesPage, run_id=run_id, cursor=cursor, **fields)
        for run in page.runs:
            found.setdefault(run, [])
        for each in page.series:
            found[each.run_id] += each.values
        cursor = page.next
        if cursor is None:
            return found


async def test_a_run_without_a_node_is_shown_running(start: Start, sim: Sim) -> None:
    await start()
    run = await sim.run(await begin(sim))
    assert (run.status, run.kind, run.attempt, run.node_id) == ("Running", "interactive", 1, None)
    assert run.spec == INTERACTIVE


async def test_every_writer_has_numbers_of_its_own(start: Start, sim: Sim) -> None:
    await start()
    run_id = await begin(sim)
    await sim.log(run_id, 0, loss(1), loss(2))
    await write(sim, run_id, "a", 0, loss(3), loss(4))
    await write(sim, run_id, "b", 0, loss(5))
    await write(sim, run_id, "a", 0, loss(3), loss(4), again="x")
    await write(sim, run_id, "a", 1, loss(4), loss(6))
    await seen(sim, run_id, await write(sim, run_id, "b", 1, loss(7)))
    assert await values(sim, run_id) == {run_id: [1, 2, 3, 4, 5, 6, 7]}
    points = (await sim.ask("run-metrics", MetricList, run_id=run_id)).points
    assert [point.sequence for point in points] == list(range(1, 8))
    assert not (await sim.ask("records-seen", SeenReply, run_id=run_id, position=10**9)).seen


async def test_series_of_a_family_over_pages(start: Start, sim: Sim) -> None:
    await start()
    top = await begin(sim)
    child = await begin(sim, top)
    leaf = await begin(sim, child)
    silent = await begin(sim, top)
    big = "é" * 4500
    text = [{**loss(0), "v": f"{number}{big}"} for number in range(40)]
    position = 0
    for start_at in range(0, 120, 40):
        position = await write(sim, child, "w", start_at, *text)
    await seen(sim, child, position)
    await seen(sim, leaf, await write(sim, leaf, "w", 0, loss(7), {**loss(8), "n": "other"}))
    assert 120 * len(big.encode()) > REPLY_BYTES
    found = await values(sim, top, recursive=True)
    assert set(found) == {top, child, leaf, silent}
    assert [value[:2].rstrip("é") for value in found[child]] == [str(n) for n in range(40)] * 3
    assert (found[leaf], found[silent]) == ([7, 8], [])
    assert await values(sim, top, recursive=True, name="other") == {
        top: [], child: [], leaf: [8], silent: [],
    }  # fmt: skip
    assert await values(sim, top) == {top: []}
    above = await sim.ask("run-ancestors", AncestorsReply, run_id=leaf)
    assert above.run_ids == (child, top)
    with pytest.raises(NotFoundError):
        await sim.ask("metric-series", SeriesPage, run_id=ids.new_id())
    with pytest.raises(UserError, match="cursor"):
        await sim.ask("metric-series", SeriesPage, run_id=top, cursor="1;2")


async def test_files_that_clients_gave_are_archived(start: Start, sim: Sim) -> None:
    await start()
    run_id = await begin(sim)
    digest = await sim.objects.put_bytes(b"weights")
    record = {"k": "file", "n": "outputs/given", "f": "outputs/given", "size": 7, "sha256": digest}
    await seen(sim, run_id, await write(sim, run_id, "w", 0, {**record, "ts": 1.0}))
    listed = await sim.store({"outputs/own": b"own"})
    summary = e.ExitSummary(reason="exited", outputs_manifest=listed)
    await sim.say(
        e.RunEndReported(run_id=run_id, outcome="Completed", outputs_manifest=listed),
        e.RunFinalizing(run_id=run_id, attempt=1, outcome="Completed", exit=summary),
    )
    await sim.events(run_id, "RunArchived")
    await sim.say(completed(run_id, outputs_manifest=listed))
    await sim.events(run_id, "RunCompleted")
    files = (await sim.ask("run-files", FileList, run_id=run_id)).files
    assert [file.path for file in files] == ["outputs/given", "outputs/own"]
