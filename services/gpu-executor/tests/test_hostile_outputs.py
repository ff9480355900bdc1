"""A run makes links of its folders: what they lead to is no output and no log of it."""

import asyncio
import hashlib
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from stellwerk_gpu_executor.attempt_dir import AttemptDir
from stellwerk_gpu_executor.folder_upload import FolderUpload
from stellwerk_gpu_executor.outputs import Outputs
from stellwerk_gpu_executor.shipper import Shipper
from stellwerk_kit.beneath import open_beneath
from stellwerk_kit.bus import Bus
from stellwerk_kit.clock import SystemClock
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.wire import Message

SECRET = b"the launch of another run"


@pytest.fixture
def attempts(tmp_path: Path) -> Path:
    """The folders of two attempts: ours and another's."""
    for name in ("mine-1/work/outputs/sub", "mine-1/work/logs/sub", "mine-1/uploads", "other-1"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "other-1/launch.json").write_bytes(SECRET)
    return tmp_path


async def test_a_record_names_no_file_through_a_link(attempts: Path, objects: ObjectStore) -> None:
    folder = AttemptDir(attempts / "mine-1")
    outputs = Outputs(objects, folder, folder.path / "work", {}, SystemClock())
    (folder.uploads / "l").symlink_to(attempts / "other-1")
    (folder.uploads / "f").symlink_to(attempts / "other-1/launch.json")
    os.mkfifo(folder.uploads / "pipe")
    for path in ("l/launch.json", "f", "pipe"):
        assert await outputs.resolve({"k": "file", "n": "x", "p": path}) is None
    (folder.uploads / "d").mkdir()
    (folder.uploads / "d/own").write_bytes(b"own")
    digest = hashlib.sha256(b"own").hexdigest()
    assert await outputs.resolve({"k": "file", "n": "y", "p": "d/own"}) == {
        "k": "file",
        "n": "y",
        "p": "d/own",
        "f": "y",
        "size": 3,
        "sha256": digest,
    }
    assert await objects.size(hashlib.sha256(SECRET).hexdigest()) is None
    _, skipped = await outputs.finish()
    assert [each.partition(":")[0] for each in skipped] == ["x"]


async def test_a_folder_that_becomes_a_link_after_it_was_looked_at(
    attempts: Path, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    top = attempts / "mine-1"
    folder = top / "work/outputs/sub"
    (folder / "launch.json").write_bytes(b"mine")
    upload = FolderUpload(objects, top, top / "work/outputs", top / "work")
    scan = upload._scan

    def scan_and_swap() -> list[Path]:
        found = scan()
        folder.rename(top / "work/away")
        folder.symlink_to(attempts / "other-1")
        return found

    monkeypatch.setattr(upload, "_scan", scan_and_swap)
    assert await upload.upload() == {}
    assert upload.skipped == {"outputs/sub/launch.json": "cannot be read"}
    assert await objects.size(hashlib.sha256(SECRET).hexdigest()) is None


async def test_a_log_is_not_read_through_a_folder_that_became_a_link(
    attempts: Path, bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[Message] = []
    await bus.client.listen("sw.log.r1.>", heard.append)
    await bus.flush()
    top = attempts / "mine-1"
    (top / "work/logs/sub/launch.json").write_bytes(b"mine")

    async def resolve(record: dict[str, Any]) -> dict[str, Any]:
        return record

    shipper = Shipper(bus, "r1", 1, AttemptDir(top), resolve)
    files = shipper._files(top / "work")
    assert [name for name, _ in files] == ["logs/sub/launch.json"]
    monkeypatch.setattr(shipper, "_files", lambda work: files)
    (top / "work/logs/sub").rename(top / "work/away")
    (top / "work/logs/sub").symlink_to(attempts / "other-1")
    await shipper.ship(top / "work")
    await bus.flush()
    assert heard == []


async def test_an_open_file_is_the_same_file_until_all_have_read_it(
    attempts: Path, objects: ObjectStore
) -> None:
    top = attempts / "mine-1"
    path = top / "work/outputs/big"
    path.write_bytes(b"x" * 3_000_000)
    file = open_beneath(top, path)
    path.unlink()
    sending = asyncio.gather(objects.put_file(file))
    await asyncio.sleep(0)
    assert file.descriptor >= 0
    assert (await sending)[0][1] == 3_000_000
    assert file.descriptor == -1
    with pytest.raises(ValueError, match="not below"):
        open_beneath(top, top / "../other-1/launch.json")


@pytest.mark.parametrize("times", [1, 100])
async def test_a_file_that_changes_while_it_is_sent_is_read_again_or_left_out_by_name(
    attempts: Path, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    top = attempts / "mine-1"
    path = top / "work/outputs/growing"
    path.write_bytes(b"x" * 200_000)
    request, written = objects._pool.request, 0

    def while_written(*args: Any, **more: Any) -> Any:
        nonlocal written
        if written < times:
            written += 1
            path.write_bytes(bytes([written]) * 200_000)
        return request(*args, **more)

    monkeypatch.setattr(objects._pool, "request", while_written)
    upload = FolderUpload(objects, top, top / "work/outputs", top / "work")
    found = await upload.upload()
    if times == 1:
        assert upload.skipped == {}
        digest = hashlib.sha256(b"\1" * 200_000).hexdigest()
        assert found["outputs/growing"].sha256 == digest
        assert await objects.get_bytes(digest) == b"\1" * 200_000
    else:
        assert (found, upload.skipped) == ({}, {"outputs/growing": "changed while it was read"})


async def test_names_and_kinds_that_no_output_has_are_left_out_by_name(
    attempts: Path, objects: ObjectStore
) -> None:
    top = attempts / "mine-1"
    folder = top / "work/outputs"
    (folder / "a\nb").write_bytes(b"1")
    (folder / os.fsdecode(b"\xff")).write_bytes(b"2")
    (folder / "host").symlink_to(attempts / "other-1/launch.json")
    (folder / "folder").symlink_to(attempts / "other-1")
    os.mkfifo(folder / "pipe")
    with socket.socket(socket.AF_UNIX) as listening:
        here = os.open(folder, os.O_RDONLY)
        listening.bind(f"/proc/self/fd/{here}/socket")  # its own path may be too long for one
        os.close(here)
    (folder / "-rf $(x)").write_bytes(b"kept")
    upload = FolderUpload(objects, top, folder, top / "work")
    assert list(await upload.upload()) == ["outputs/-rf $(x)"]
    reasons = {name.partition("/")[2]: why for name, why in upload.skipped.items()}
    assert "cannot be stored" in reasons.pop("a\nb")
    assert "cannot be stored" in reasons.pop("?")
    assert reasons == {
        "host": "is a symbolic link",
        "folder": "is a symbolic link",
        "pipe": "is no regular file",
        "socket": "is no regular file",
    }
    assert await objects.size(hashlib.sha256(SECRET).hexdigest()) is None
