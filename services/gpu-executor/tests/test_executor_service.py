"""The executor on a real broker and object store, running real processes."""

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from assignments import Watcher, assigned, publish, scheduler, start

from stellwerk.events import (
    AttemptExited,
    AttemptStarted,
    ImageInfo,
    NodeJoined,
    NodeScaled,
    PoolTargetSet,
    ResolvedInput,
    RunStopRequested,
)
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_gpu_executor.prepare import reason_of
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import wait_until


async def test_provides_nodes_by_generation(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await start(runtime_factory, s3_settings, tmp_path, max_nodes=3)
    await wait_until(lambda: watch.of(NodeJoined))
    target = {"pool": "cpu", "executor_id": "local", "reason": "queue"}
    await publish(bus, PoolTargetSet(size=2, generation=1, **target))
    await publish(bus, PoolTargetSet(size=9, generation=2, **target))
    await publish(bus, PoolTargetSet(size=1, generation=3, drain=("cpu-0-local",), **target))
    scaled = await wait_until(
        lambda: (
            watch.of(NodeScaled)
            if len(watch.of(NodeScaled)) >= 1 and watch.of(NodeScaled)[-1].generation == 3
            else None
        )
    )
    assert (scaled[-1].to_count, len(scaled[-1].nodes)) == (1, 1)
    assert all(event.to_count <= 3 for event in scaled)


SCRIPT = """
import os, sys, json
from stellwerk_agent import Run
run = Run.get_context()
print("hello", os.environ["AZUREML_RUN_ID"], sys.argv[1:])
for step in range(5):
    run.log("loss", 1.0 / (step + 1))
data = open(sys.argv[2]).read()
os.makedirs("outputs/model", exist_ok=True)
open("outputs/model/weights.txt", "w").write(data * 2)
os.symlink("/etc/hostname", "outputs/link")
open("logs/extra.txt", "w").write("side log")
open("note.txt", "w").write("note")
run.upload_file("note.txt", "note.txt")
print("done")
"""


async def test_attempt_from_assignment_to_exit(
    runtime_factory: Any, bus: Bus, s3_settings: Any, objects: ObjectStore, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    digest = await objects.put_bytes(b"abc")
    manifest = await objects.put_manifest(
        Manifest(entries=(ManifestEntry(path="data.txt", size=3, sha256=digest),))
    )
    data = ResolvedInput(
        dataset_id="d1",
        name="data",
        version=1,
        mode="mount",
        path=None,
        manifest=manifest,
        files=1,
        bytes=3,
        single_file=True,
    )
    spec = {
        "arguments": ["--data", {"input": "data"}, 50, 0.5],
        "inputs": {"data": {"dataset": "data"}},
    }
    await publish(bus, assigned("run1", SCRIPT, spec=spec, inputs={"data": data}), 1)
    (exited,) = await wait_until(lambda: watch.of(AttemptExited), 20)
    assert exited.exit.succeeded, watch.log.decode()
    assert watch.of(AttemptStarted)[0].pid > 0
    text = watch.log.decode()
    assert text.startswith("hello run1 ['--data', '/")
    assert text.endswith("'50', '0.5']\ndone\n")
    closure = next(log for log in exited.exit.logs if log.stream == "std")
    assert (closure.bytes, closure.sha256) == (
        len(watch.log),
        hashlib.sha256(watch.log).hexdigest(),
    )
    assert any(log.path == "logs/extra.txt" and log.bytes == 8 for log in exited.exit.logs)
    assert [r["v"] for r in watch.records if r["k"] == "metric"] == [1 / n for n in range(1, 6)]
    assert exited.exit.metric_records == len(watch.records)
    files = {
        entry.path: entry
        for entry in (await objects.get_manifest(exited.exit.outputs_manifest)).entries
    }
    assert set(files) == {"outputs/model/weights.txt", "note.txt"}
    assert await objects.get_bytes(files["outputs/model/weights.txt"].sha256) == b"abcabc"
    assert any("outputs/link" in line for line in exited.exit.outputs_skipped)
    await wait_until(lambda: not list((tmp_path / "executor" / "attempts").iterdir()))


async def test_restart_of_the_executor_loses_nothing(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    first = await start(runtime_factory, s3_settings, tmp_path)
    gate = tmp_path / "executor/attempts/run2-1/work/gate"
    script = "import os, time\nfor n in range(200): print('line', n)\nwhile not os.path.exists('gate'): time.sleep(0.02)\nprint('after')\n"
    await publish(bus, assigned("run2", script), 1)
    await wait_until(lambda: b"line 199" in watch.log, 20)
    await first.stop()
    gate.touch()
    await start(runtime_factory, s3_settings, tmp_path)
    (exited,) = await wait_until(lambda: watch.of(AttemptExited), 20)
    assert exited.exit.succeeded
    assert watch.log.decode() == "".join(f"line {n}\n" for n in range(200)) + "after\n"
    await publish(bus, assigned("run2", script), 2)  # a late repeat starts nothing
    await wait_until(lambda: _settled(bus))
    assert len(watch.of(AttemptExited)) == 1


async def _settled(bus: Bus) -> bool:
    info = await bus.js.consumer_info("SW_EVENTS", "executor-local")
    return info.num_pending == 0 and info.num_ack_pending == 0


async def test_stop_running_and_unknown_attempts(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, assigned("run3", "import time\nprint('up')\ntime.sleep(600)\n"), 1)
    await wait_until(lambda: b"up" in watch.log, 20)
    stop = {
        "attempt": 1,
        "node_id": "cpu-0-local",
        "executor_id": "local",
        "reason": "canceled",
        "grace_s": 2.0,
    }
    await publish(bus, RunStopRequested(run_id="run3", **stop), 2)
    await publish(bus, RunStopRequested(run_id="run4", **stop), 2)
    await wait_until(lambda: len(watch.of(AttemptExited)) == 2, 20)
    assert {event.exit.reason for event in watch.of(AttemptExited)} == {"canceled"}


async def test_what_cannot_start_is_said(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, assigned("run5", "", image=ImageInfo(env_id="e" * 40)), 1)
    lost = ResolvedInput(
        dataset_id="d",
        name=None,
        version=None,
        mode="mount",
        path=None,
        manifest="0" * 64,
        files=1,
        bytes=1,
        single_file=False,
    )
    await publish(
        bus,
        assigned("run6", "", inputs={"data": lost}, spec={"inputs": {"data": {"dataset": "d"}}}),
        1,
    )
    await publish(bus, assigned("run7", "raise SystemExit(3)"), 1)
    for run_id, name in (("run8", "main.py/x"), ("run9", "../x"), ("run10", "a\0b")):
        source = {"inline": {"main.py": "", name: ""}}
        await publish(bus, assigned(run_id, "", spec={"source": source}), 1)
    await publish(bus, assigned("run11", "", spec={"arguments": ["a\0b"]}), 1)
    await publish(bus, assigned("run12", "", spec={"environment_variables": {"A": "b\0"}}), 1)
    await wait_until(lambda: len(watch.of(AttemptExited)) == 8, 20)
    ends = {event.run_id: event.exit for event in watch.of(AttemptExited)}
    assert ends["run5"].reason == "environment-missing"
    assert ends["run6"].reason == "input-failed"
    assert (ends["run7"].reason, ends["run7"].exit_code) == ("exited", 3)
    for run_id in ("run8", "run9", "run10"):
        assert ends[run_id].reason == "launch-failed"
        assert str(ends[run_id].message).startswith("source: ")
        assert str(tmp_path) not in str(ends[run_id].message)
    for run_id, what in (
        ("run11", "argument 2 holds the character U+0000"),
        ("run12", "variable 'A' holds the character U+0000"),
    ):
        assert ends[run_id].reason == "launch-failed"
        assert what in str(ends[run_id].message)
        assert sys.executable not in str(ends[run_id].message)


def test_a_full_disk_is_the_node_s_fault() -> None:
    with pytest.raises(OSError) as full, Path("/dev/full").open("w", buffering=1) as device:
        device.write("x\n")
    assert reason_of(full.value) == reason_of(full.value, "input-failed") == "disk-full"
    with pytest.raises(OSError) as absent:
        Path("/dev/null/x").read_bytes()
    assert reason_of(absent.value) == "launch-failed"
    assert reason_of(absent.value, "input-failed") == "input-failed"


async def test_an_attempt_that_breaks_the_executor_ends_alone(
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)

    async def broken(*_: Any) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patch:
        patch.setattr("stellwerk_gpu_executor.shipper.Shipper.ship_log", broken)
        await publish(bus, assigned("run8", "import time\ntime.sleep(600)\n"), 1)
        await wait_until(lambda: watch.of(AttemptExited), 20)
    assert watch.of(AttemptExited)[0].exit.reason == "outputs-failed"
    await publish(bus, assigned("run9", "print('fine')\n"), 1)
    await wait_until(lambda: len(watch.of(AttemptExited)) == 2, 20)
    assert watch.of(AttemptExited)[1].exit.succeeded


PRODUCER = """
import os, sys
folder, text, places = sys.argv[1:4]
assert folder == os.environ["AZURE_ML_OUTPUT_table"] == os.environ["table"], folder
assert text == f"{folder}/x $HOME $AZUREML_DATAREFERENCE_none", text
assert os.environ["AZUREML_DATASET_FILE_OUTPUTS"].split(";") == ["table", "here", "PATH"]
assert os.environ["AZURE_ML_OUTPUT_PATH"].endswith("/PATH") and "/bin" in os.environ["PATH"]
from stellwerk_agent import Run
told = Run.get_context().output_datasets
assert (told["table"], told["here"]) == (folder, places)
os.makedirs(folder + "/sub")
open(folder + "/sub/a.csv", "w").write("a,b\\n1,2\\n")
os.symlink("/etc/hostname", folder + "/link")
open("made/b.txt", "w").write("b")
sys.exit(int(sys.argv[4]))
"""


@pytest.mark.parametrize("status", [0, 3])
async def test_outputs_of_a_successful_attempt_are_stored(
    runtime_factory: Any, bus: Bus, s3_settings: Any, objects: ObjectStore, tmp_path: Path,
    status: int,
) -> None:  # fmt: skip
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    text = "${AZUREML_DATAREFERENCE_table}/x $HOME $AZUREML_DATAREFERENCE_none"
    spec = {
        "arguments": [{"output": "table"}, text, {"output": "here"}, status],
        "outputs": {
            "table": {},
            "here": {"path_on_compute": "./made", "mode": "upload"},
            "PATH": {},
        },
    }
    await publish(bus, assigned("run1", PRODUCER, spec=spec), 1)
    (exited,) = await wait_until(lambda: watch.of(AttemptExited), 20)
    assert exited.exit.exit_code == status, watch.log.decode()
    if status:
        assert exited.exit.outputs == {}
        return
    table, here = exited.exit.outputs["table"], exited.exit.outputs["here"]
    assert (table.files, table.bytes, here.files) == (1, 8, 1)
    manifest = await objects.get_manifest(table.manifest)
    assert [entry.path for entry in manifest.entries] == ["sub/a.csv"]
    assert await objects.get_bytes(manifest.entries[0].sha256) == b"a,b\n1,2\n"
    assert exited.exit.outputs_skipped == ("output 'table': link: is a symbolic link",)


async def test_an_output_where_the_source_is_ends_the_run(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    for number, path in enumerate(("main.py", "../out", "/etc")):
        spec = {"outputs": {"x": {"path_on_compute": path}}}
        await publish(bus, assigned(f"run{number}", "", spec=spec), 1)
    exits = await wait_until(
        lambda: watch.of(AttemptExited) if len(watch.of(AttemptExited)) == 3 else None, 20
    )
    assert {each.exit.reason for each in exits} == {"launch-failed"}
    assert all(each.exit.message.startswith("output 'x': path") for each in exits)


async def test_interpreters_of_the_machine(
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``python`` is the first on the executor's PATH, ``python3`` where there is none."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    first = await start(runtime_factory, s3_settings, tmp_path)
    real = f"{tmp_path}/bin/python3"
    script = f"import sys; print(sys.executable); sys.exit(sys.executable != {real!r})"
    shim = tmp_path / "shims/python3.0"
    shim.parent.mkdir()
    shim.write_text(f'#!/bin/sh\nexec {tmp_path}/bin/python3 "$@"\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{tmp_path}/shims")
    named = {"python": "run1", str(tmp_path / "nowhere/python"): "run2", "python3.0": "run4"}
    for interpreter, run_id in named.items():
        image = ImageInfo(env_id="none", interpreter=interpreter)
        await publish(bus, assigned(run_id, script, image=image), 1)
    await wait_until(lambda: len(watch.of(AttemptExited)) == 3, 20)
    ends = {event.run_id: event.exit for event in watch.of(AttemptExited)}
    assert ends["run1"].succeeded, watch.log
    assert ends["run4"].succeeded, watch.log
    assert watch.log.decode() == f"{tmp_path}/bin/python3\n"
    assert ends["run2"].reason == "launch-failed"
    assert f"interpreter {tmp_path}/nowhere/python is not on this node" in ends["run2"].message

    await first.stop()
    await start(runtime_factory, s3_settings, tmp_path, host_interpreters=False)
    await publish(bus, assigned("run3", script), 1)
    await wait_until(lambda: len(watch.of(AttemptExited)) == 4, 20)
    refused = watch.of(AttemptExited)[3].exit
    assert refused.reason == "launch-failed"
    assert "STELLWERK_HOST_INTERPRETERS" in refused.message


async def test_a_distributed_run_is_several_processes_with_a_log_each(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    script = (
        "import os, sys\nfrom stellwerk_agent import Run\n"
        "Run.get_context().log('rank', int(os.environ['RANK']))\nprint('rank', *sys.argv[1:])\n"
    )
    spec = {"distributed": {"backend": "pytorch", "process_count": 2}, "arguments": ["--lr", 0.1]}
    await publish(bus, assigned("run1", script, spec=spec), 1)
    (exited,) = await wait_until(lambda: watch.of(AttemptExited), 30)
    assert exited.exit.succeeded, watch.log
    assert sorted(watch.log.decode().splitlines()) == ["[0] rank --lr 0.1", "[1] rank --lr 0.1"]
    assert sorted(record["v"] for record in watch.records) == [0, 1]
    logs = {log.path: log.bytes for log in exited.exit.logs}
    size = len("rank --lr 0.1\n")
    assert logs["user_logs/std_log_process_0.txt"] == size
    assert logs["user_logs/std_log_process_1.txt"] == size


async def test_a_node_without_a_sandbox_refuses_where_one_is_required(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.setattr("stellwerk_gpu_executor.isolation.shutil.which", lambda name: None)
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path, sandbox="require")
    await publish(bus, assigned("run1", "print('never')"), 1)
    (exited,) = await wait_until(lambda: watch.of(AttemptExited), 20)
    assert exited.exit.reason == "launch-failed"
    assert "STELLWERK_SANDBOX=require" in exited.exit.message
    assert watch.log == b""


async def test_a_path_that_the_walls_hide_is_told_and_nobody_learns_what_is_there(
    runtime_factory: Any, bus: Bus, s3_settings: Any, tmp_path: Path
) -> None:
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path, sandbox="require")
    used = (tmp_path, Path(__file__), Path(sys.prefix), Path(sys.base_prefix))
    there = next(
        place
        for place in map(Path, ("/srv", "/media", "/mnt", "/boot"))
        if place.exists() and not any(each.is_relative_to(place) for each in used)
    )
    paths = [there, there.with_name(f"none-{there.name}")]
    messages = []
    for number, path in enumerate(paths):
        await publish(bus, assigned(f"run{number}", f"open({str(path)!r})"), number + 1)
        ended = await wait_until(
            lambda wanted=number + 1: (
                found if len(found := watch.of(AttemptExited)) == wanted else None
            ),
            30,
        )
        messages.append(ended[-1].exit.message.replace(str(path), "PATH"))
    assert messages[0] == messages[1]
    assert messages[0].startswith("the script exited with status 1; 'PATH' was not found; a sandb")
    assert "STELLWERK_SANDBOX_READABLE" in messages[0]
