"""What events make of a run; names, records and log files. No servers."""

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest
from history_setup import START, Sim, closure, completed, image, placed, preparing, queued, spec
from hypothesis import given
from hypothesis import strategies as st

from stellwerk import events as e
from stellwerk.manifest import ManifestEntry
from stellwerk_history.closing import Log, LogKey, archive, checked_path, shown_path
from stellwerk_history.domain import Run, Skip, apply, concerns, phases_at, submit, view
from stellwerk_history.logfiles import LogFiles, OpenLog
from stellwerk_history.records import Batch, MalformedBatchError, parse_batch, read_batch

RUN = "a" * 32


def read(body: bytes, known: int) -> Batch:
    return read_batch(parse_batch(body), known)


def fold(*events: e.Event, passed_s: float = 1.0) -> Run:
    sim = Sim(cast(Any, None), cast(Any, None))
    submitted = e.RunSubmitted(run_id=RUN, experiment="mnist", spec=spec())
    run, _ = submit(sim.wrap(submitted, passed_s=0), 7, 1)
    for event in events:
        run, _ = apply(run, sim.wrap(event, passed_s=passed_s))
    return run


def test_phases_are_the_time_in_their_states() -> None:
    run = fold(preparing(RUN), queued(RUN), *placed(RUN, 1), passed_s=2)
    assert phases_at(run.detail, START + timedelta(seconds=11)) == {
        "preparing": 4, "scaling": 2, "starting": 2, "running": 3,
    }  # fmt: skip
    retry = e.RunRetrying(run_id=RUN, attempt=2, reason="lost", message="m", delay_s=1)
    over = e.RunFinalizing(run_id=RUN, attempt=2, outcome="Completed", exit=None)
    run = fold(
        preparing(RUN), queued(RUN), *placed(RUN, 1), retry, *placed(RUN, 2), over, completed(RUN)
    )
    assert run.detail.phases == {
        "preparing": 2, "scaling": 2, "starting": 2, "running": 2, "post_processing": 1,
    }  # fmt: skip
    assert phases_at(run.detail, START + timedelta(days=1)) == run.detail.phases
    assert run.state.attempt == 2


def test_a_clock_that_goes_back_takes_no_time_away() -> None:
    run = fold(preparing(RUN), queued(RUN), passed_s=-5)
    assert phases_at(run.detail, START) == {"preparing": 0.0, "scaling": 0.0}


def test_events_that_may_not_come_are_skipped() -> None:
    sim = Sim(cast(Any, None), cast(Any, None))
    run = fold(preparing(RUN), queued(RUN))
    started = e.RunStarted(run_id=RUN, attempt=1, node_id="n")
    sim.sequences[RUN] = 2
    with pytest.raises(Skip, match="RunStarted in state Queued"):
        apply(run, sim.wrap(started))
    sim.sequences[RUN] = 1
    with pytest.raises(Skip, match="numbered"):
        apply(run, sim.wrap(placed(RUN, 1)[0]))
    with pytest.raises(Skip, match="unknown run"):
        submit(sim.wrap(started), 1, 1)


def progressed(attempt: int, **steps: float) -> e.AttemptProgressed:
    node = {"run_id": RUN, "attempt": attempt, "node_id": "n", "executor_id": "x"}
    return e.AttemptProgressed(**node, timings_s=steps)


def test_a_script_that_began_again_was_no_warm_start() -> None:
    assigned, began = placed(RUN, 1)
    began = began.model_copy(update={"start": e.StartInfo(warm=True, timings_s={"launch": 0.5})})
    again = progressed(1).model_copy(update={"cold_reason": "X was changed"})
    for order in ((began, again), (again, began), (began, again, progressed(1, imports=2.0))):
        start = fold(preparing(RUN), queued(RUN), assigned, *order).detail.start
        assert start is not None
        assert (start.warm, start.cold_reason) == (False, "X was changed")
        assert start.timings_s["launch"] == 0.5
    _, entry = apply(
        fold(preparing(RUN), queued(RUN), assigned, began),
        Sim(cast(Any, None), cast(Any, None)).wrap(again),
    )
    assert entry.message == "It began again in a new Python: X was changed."


def test_how_far_a_script_has_got_is_a_part_of_its_start() -> None:
    assigned, began = placed(RUN, 1)
    began = began.model_copy(update={"start": e.StartInfo(warm=True, timings_s={"launch": 0.5})})
    steps = (progressed(1, imports=2.5), progressed(1, imports=2.5, first_step=1.25))
    for order in ((began, *steps), (steps[0], began, steps[1]), (*steps, began)):
        run = fold(preparing(RUN), queued(RUN), assigned, *order)
        known = {"launch": 0.5, "imports": 2.5, "first_step": 1.25}
        assert run.detail.start == e.StartInfo(warm=True, timings_s=known)
    _, entry = apply(run, Sim(cast(Any, None), cast(Any, None)).wrap(steps[1]))
    assert entry.message == "The imports took 2.50 s, the first training step came after 1.25 s."
    retry = e.RunRetrying(run_id=RUN, attempt=2, reason="lost", message="m", delay_s=1)
    run = fold(preparing(RUN), queued(RUN), assigned, began, retry, placed(RUN, 2)[0], *steps)
    assert run.detail.start is None, "another attempt's"


def test_a_late_report_changes_neither_status_nor_attempt() -> None:
    run = fold(preparing(RUN), queued(RUN), *placed(RUN, 2))
    sim = Sim(cast(Any, None), cast(Any, None))
    exited = e.AttemptExited(
        run_id=RUN, attempt=1, node_id="n", executor_id="x", exit=e.ExitSummary(reason="lease-expired")
    )  # fmt: skip
    after, entry = apply(run, sim.wrap(exited))
    assert (after.state, after.detail.exit) == (run.state, None)
    assert (entry.status, entry.attempt, entry.message) == (
        "Running",
        2,
        "The attempt ended: lease-expired.",
    )


def test_what_a_view_shows_of_a_failure() -> None:
    failed = e.RunFailed(
        run_id=RUN, experiment="mnist", attempt=1, code="user.exit", message="status 3",
        exit=e.ExitSummary(reason="exited", exit_code=3, logs=(closure("std", "p", b""),)),
    )  # fmt: skip
    shown = view(fold(preparing(RUN), failed), START, {"a": None}, {}, spec())
    assert (shown.status, shown.error and shown.error.code) == ("Failed", "user.exit")
    assert shown.exit is not None
    assert shown.exit.exit_code == 3
    assert shown.ended_at == START + timedelta(seconds=2)


def test_an_environment_is_about_all_who_waited() -> None:
    ready = e.ImageReady(env_id="e", run_ids=("x", "y", "x"), image=image(), cached=False)
    assert concerns(Sim(cast(Any, None), cast(Any, None)).wrap(ready)) == ("x", "y")


@pytest.mark.parametrize(
    ("stream", "given_path", "path"),
    [
        ("std", "logs/other", "user_logs/std_log.txt"),
        ("build", None, "azureml-logs/20_image_build_log.txt"),
        ("f-1", "logs/a/b.txt", "logs/a/b.txt"),
        ("f-1", "outputs/model", "logs/f-1"),
        ("f-1", "logs/../secret", "logs/f-1"),
        ("f-1", "/logs/a", "logs/f-1"),
        ("f-1", None, "logs/f-1"),
        ("f-1", "azureml-logs/65_job_prep.txt", "azureml-logs/65_job_prep.txt"),
        ("f-1", "azureml-logs/70_driver_log.txt", "logs/f-1"),
    ],
)
def test_paths_of_streams(stream: str, given_path: str | None, path: str) -> None:
    assert checked_path(stream, given_path) == path


def test_paths_of_earlier_attempts() -> None:
    std = Log(LogKey("r", 1, "std"), "user_logs/std_log.txt")
    file = Log(LogKey("r", 1, "f-1"), "logs/a")
    assert [shown_path(std, latest) for latest in (0, 1, 2)] == [
        "user_logs/std_log.txt", "user_logs/std_log.txt", "user_logs/attempt_1/std_log.txt",
    ]  # fmt: skip
    assert shown_path(file, 3) == "user_logs/attempt_1/logs/a"


@given(st.lists(st.sampled_from(["a", "a/b", "a/b/c", "logs", "logs/x", "logs/x/y"])))
def test_an_archive_is_always_a_manifest_and_has_every_log(paths: list[str]) -> None:
    logs = [ManifestEntry(path="logs/x", size=1, sha256="0" * 64)]
    outputs = [ManifestEntry(path=path, size=2, sha256="1" * 64) for path in paths]
    found = {entry.path: entry.size for entry in archive(outputs, logs).entries}
    assert found["logs/x"] == 1
    assert found.keys() >= {"a"} & set(paths[:1])


def batch(*records: Any, first: int = 0) -> bytes:
    return json.dumps({"first": first, "records": records}).encode()


def test_shapes_of_metrics() -> None:
    found = read(
        batch(
            {"k": "metric", "n": "loss", "t": "scalar", "v": 0.25, "s": 3, "ts": 9.5, "d": "text"},
            {
                "k": "metric",
                "n": "l ",
                "t": "list",
                "v": [1, "NaN", None, True],
                "s": None,
                "ts": 1,
            },
            {"k": "metric", "n": "r", "t": "row", "v": {"x": 1, "y": "a"}, "s": None, "ts": 1},
            {"k": "metric", "n": "t", "t": "table", "v": {"x": [1, 2]}, "s": None, "ts": 1},
            {
                "k": "image",
                "n": "curve",
                "f": "curve_1.png",
                "size": 4,
                "sha256": "a" * 64,
                "ts": 1,
            },
            {"k": "property", "n": "seed", "v": "7"},
            {"k": "dropped", "by": "agent", "records": 3},
            {"k": "metric", "n": "inf", "t": "scalar", "v": "Infinity", "s": None, "ts": 1},
        ),
        0,
    )
    assert found.metrics == [
        (1, "loss", "scalar", "0.25", 3, 9.5),
        (2, "l ", "list", '[1,"NaN",null,true]', None, 1.0),
        (3, "r", "row", '{"x":1,"y":"a"}', None, 1.0),
        (4, "t", "table", '{"x":[1,2]}', None, 1.0),
        (5, "curve", "image", '"curve_1.png"', None, 1.0),
        (8, "inf", "scalar", '"Infinity"', None, 1.0),
    ]
    assert found.latest == {"loss": 0.25, "inf": None}
    assert found.files == {"curve_1.png": (4, "a" * 64)}
    assert (found.properties, found.end, found.malformed) == ({"seed": "7"}, 8, 0)


@pytest.mark.parametrize(
    "record",
    [
        1, None, [], {"k": "metric"}, {"k": "metric", "n": "a", "t": "scalar", "v": [1]},
        {"k": "metric", "n": "a", "t": "list", "v": 1}, {"k": "metric", "n": "a", "t": "odd", "v": 1},
        {"k": "metric", "n": "a" * 256, "t": "scalar", "v": 1},
        {"k": "metric", "n": "a", "t": "scalar", "v": float("nan")},
        {"k": "metric", "n": "a", "t": "scalar", "v": "\ud800"},
        {"k": "metric", "n": "a\x00", "t": "scalar", "v": 1},
        {"k": "metric", "n": "a", "t": "scalar", "v": 1, "s": 2**63},
        {"k": "metric", "n": "a", "t": "scalar", "v": 1, "s": 1.5},
        {"k": "file", "n": "../x", "size": 1, "sha256": "a" * 64}, {"k": "file", "n": "x", "size": -1, "sha256": "a" * 64},
        {"k": "file", "n": "x", "size": 1}, {"k": "tag", "n": "a", "v": 1}, {"k": "tag", "v": "a"},
    ],
)  # fmt: skip
def test_a_broken_record_is_left_out_alone(record: Any) -> None:
    good = {"k": "metric", "n": "m", "t": "scalar", "v": 1, "s": None, "ts": "never"}
    found = read(batch(record, good), 0)
    assert (found.malformed, [row[0] for row in found.metrics]) == (1, [2])


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"first":-1,"records":[]}', b'{"first":true,"records":[]}',
                                  b'{"first":0,"records":{}}', b'{"first":1' + b"0" * 30 + b',"records":[]}', b"[" * 5000])  # fmt: skip
def test_a_message_that_is_no_batch(body: bytes) -> None:
    with pytest.raises(MalformedBatchError):
        read(body, 0)


def test_records_seen_before_are_left_out() -> None:
    records = [{"k": "tag", "n": f"t{number}", "v": None} for number in range(5)]
    found = read(batch(*records, first=10), 12)
    assert (sorted(found.tags), found.end) == (["t2", "t3", "t4"], 15)
    assert read(batch(*records, first=0), 12).end == 12


@given(st.data())
def test_chunks_in_any_order_with_repeats_give_the_text(data: st.DataObject) -> None:
    import tempfile

    text = data.draw(st.binary(min_size=1, max_size=60))
    cuts = data.draw(
        st.lists(st.tuples(st.integers(0, len(text)), st.integers(0, 30)), max_size=20)
    )
    chunks = [*cuts, *[(offset, 10) for offset in range(0, len(text), 10)]]
    chunks = data.draw(st.permutations(chunks))
    with tempfile.TemporaryDirectory() as folder:
        file = OpenLog(Path(folder, "log"), 0)
        waiting = list(chunks)
        while waiting:
            left = [
                each
                for each in waiting
                if not file.append(each[0], text[each[0] : each[0] + each[1]])
            ]
            assert len(left) < len(waiting)
            waiting = left
        file.close()
        assert Path(folder, "log").read_bytes() == text
        assert file.sha256(len(text)) == hashlib.sha256(text).hexdigest()


def test_what_was_not_committed_is_cut_off(tmp_path: Path) -> None:
    key = LogKey("a" * 32, 1, "std")
    files = LogFiles(tmp_path)
    files.opened(key, 0).append(0, b"committed and more")
    files.close()
    files = LogFiles(tmp_path)
    again = files.opened(key, 9)
    assert again.append(9, b"!")
    assert not again.append(11, b"?")
    files.sync()
    assert files.path(key).read_bytes() == b"committed!"
    assert files.digest(key, 10) == hashlib.sha256(b"committed!").hexdigest()
    files.remove(key)
    assert list(tmp_path.rglob("std")) == []


def test_a_full_disk_leaves_whole_chunks(tmp_path: Path) -> None:
    import resource
    import signal

    file = OpenLog(tmp_path / "log", 0)
    file.append(0, b"x" * 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            file.append(1000, b"y" * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert (file.size, (tmp_path / "log").stat().st_size) == (1000, 1000)
    assert file.append(1000, b"z")
    file.close()
    assert (tmp_path / "log").read_bytes() == b"x" * 1000 + b"z"
