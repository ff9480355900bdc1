"""Parts of the supervisor under faults that a whole run cannot be made to meet: a full disk."""

import json
import os
import socket
import time
from pathlib import Path

from stellwerk_shim.files import Reserved, read_json
from stellwerk_shim.limits import Limits
from stellwerk_shim.logpipe import PIPE_BYTES, LogPipe
from stellwerk_shim.notifier import Notifier
from stellwerk_shim.runsocket import RunSocket


def test_full_disk_holds_the_log_back(tmp_path: Path) -> None:
    (tmp_path / "std.log").symlink_to("/dev/full")
    log = LogPipe(str(tmp_path / "std.log"), 1 << 20, drop=False)
    os.write(log.child_end, b"kept back")
    assert log.copy(10.0)
    assert (log.wants_input, log.deadline) == (False, 11.0)
    assert log.tick(10.5) is False
    assert log.tick(11.0) is False
    assert log.deadline == 12.0
    (tmp_path / "real").touch()
    os.dup2(os.open(tmp_path / "real", os.O_WRONLY), log._file)
    assert log.tick(12.0) is True
    assert (tmp_path / "real").read_bytes() == b"kept back"
    assert log.wants_input


def test_full_disk_at_the_end_is_counted(tmp_path: Path) -> None:
    (tmp_path / "std.log").symlink_to("/dev/full")
    log = LogPipe(str(tmp_path / "std.log"), 1 << 20, drop=False)
    os.write(log.child_end, b"never written")
    log.copy(10.0)
    os.write(log.child_end, b", nor this")
    os.close(log.child_end)
    now = time.monotonic()
    log.drain(now, now + 5)
    assert (log.ended, log.dropped, log.size) == (True, 23, 0)
    log.close()


def test_drain_ends_although_a_stranger_holds_the_pipe(tmp_path: Path) -> None:
    log = LogPipe(str(tmp_path / "std.log"), 1 << 20, drop=False)
    os.write(log.child_end, b"x" * PIPE_BYTES)
    now = time.monotonic()
    log.drain(now, now + 0.2)
    assert (log.ended, log.size) == (False, PIPE_BYTES)
    os.close(log.child_end)
    log.close()


def test_full_disk_holds_records_back(tmp_path: Path) -> None:
    (tmp_path / "records.jsonl").symlink_to("/dev/full")
    records = RunSocket(str(tmp_path), 1 << 20)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(tmp_path / "run.sock"))
    client.sendall(b'{"k":"a"}\n')
    (listener,) = records.selectable
    records.handle(listener, 10.0)
    _, connection = records.selectable
    records.handle(connection, 10.0)
    assert (records.selectable, records.deadline) == ([], 11.0)
    os.dup2(os.open(tmp_path / "real", os.O_WRONLY | os.O_CREAT), records._file)
    assert records.tick(11.0) is True
    assert (tmp_path / "real").read_bytes() == b'{"k":"a"}\n'
    assert len(records.selectable) == 2
    client.close()
    records.drain(12.0, time.monotonic() + 5)
    records.close()


def test_record_limit_is_said_once(tmp_path: Path) -> None:
    records = RunSocket(str(tmp_path), 50)
    for _ in range(5):
        records.warn(0.0, k="x", pad="y" * 10)
    records.close()
    lines = [json.loads(line) for line in (tmp_path / "records.jsonl").read_bytes().splitlines()]
    assert [line["k"] for line in lines] == ["dropped"] or [line["k"] for line in lines] == [
        "x",
        "dropped",
    ]


def test_exit_record_needs_no_new_blocks(tmp_path: Path) -> None:
    reserved = Reserved(str(tmp_path), "exit.json")
    before = (tmp_path / "exit.json").stat().st_blocks
    assert before * 512 >= 4096
    assert read_json(str(tmp_path), "exit.json") == {}
    folder = os.open(tmp_path, os.O_RDONLY)
    reserved.commit({"reason": "exited"}, folder)
    os.close(folder)
    assert (tmp_path / "exit.json").stat().st_blocks == before
    assert json.loads((tmp_path / "exit.json").read_text()) == {"reason": "exited"}
    assert [path.name for path in tmp_path.iterdir()] == ["exit.json"]


def test_full_notify_queue_is_tried_again(tmp_path: Path) -> None:
    receiver = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    receiver.bind(str(tmp_path / "n.sock"))
    notifier = Notifier(str(tmp_path / "n.sock"), "run-a/1")
    sent = 0
    while notifier.deadline == float("inf") and sent < 100_000:
        notifier.send(1.0)
        sent += 1
    assert notifier.deadline == 1.02
    notifier.tick(1.01)
    assert notifier.deadline == 1.02
    assert receiver.recv(100) == b"run-a/1"
    notifier.tick(1.02)
    assert notifier.deadline == float("inf")
    receiver.close()
    notifier.send(2.0)
    (tmp_path / "n.sock").unlink()
    notifier.send(3.0)
    assert notifier.deadline == float("inf")
    notifier._socket.close()


def test_unreadable_lease_changes_nothing(tmp_path: Path) -> None:
    lease = tmp_path / "lease"
    lease.write_text("100.0")
    limits = Limits(str(tmp_path), {}, 0.0)
    assert limits.deadline == 100.0
    lease.write_text("gar bage")
    assert limits.check(99.0, list) is None
    assert limits.check(100.0, list) == (
        "lease-expired",
        "this node lost contact and its lease on the run ran out",
    )
    lease.write_text("none")
    assert Limits(str(tmp_path), {}, 0.0).deadline == float("inf")
