"""Datasets by as_mount(): lazy mounts by a real rclone and FUSE, and what is done without."""

import asyncio
import hashlib
import json
import os
import select
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import pytest
from assignments import Watcher, assigned, publish, scheduler, start

from stellwerk.events import AttemptExited, ResolvedInput, RunStopRequested
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_gpu_executor import rclone
from stellwerk_gpu_executor.mount_choice import choose
from stellwerk_gpu_executor.rclone import missing, mounted
from stellwerk_kit.bus import Bus
from stellwerk_kit.objects import ObjectStore
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing import wait_until
from stellwerk_kit.testing.host import lacking

MIB = 1024 * 1024
PREPARED = "azureml-logs/65_job_prep.txt"


@pytest.fixture
def fuse() -> None:
    if why := missing():
        lacking(f"no lazy mounts here: {why}")


async def dataset(
    objects: ObjectStore, files: dict[str, bytes], mode: str = "mount"
) -> ResolvedInput:
    entries = [
        ManifestEntry(path=name, size=len(data), sha256=await objects.put_bytes(data))
        for name, data in sorted(files.items())
    ]
    manifest = await objects.put_manifest(Manifest(entries=tuple(entries)))
    return ResolvedInput(
        dataset_id="d1", name="data", version=1, mode=mode, path=None, manifest=manifest,
        files=len(files), bytes=sum(map(len, files.values())), single_file=False,
    )  # fmt: skip


def submitted(run_id: str, script: str, data: ResolvedInput, lazy: bool | None = True) -> Any:
    given: dict[str, Any] = {"dataset": "data", "mode": data.mode}
    spec = {"arguments": [{"input": "data"}], "inputs": {"data": given | {"lazy": lazy}}}
    return assigned(run_id, script, spec=spec, inputs={"data": data})


def noise(size: int, seed: str = "") -> bytes:
    """Bytes that no piece of another place has."""
    blocks = (hashlib.sha256(f"{seed}{n}".encode()).digest() for n in range(size // 32 + 1))
    return b"".join(blocks)[:size]


READS = """
import hashlib, json, os, sys
top = sys.argv[1]
def digest(path): return hashlib.sha256(open(path, "rb").read()).hexdigest()
found = {os.path.relpath(os.path.join(f, n), top): digest(os.path.join(f, n)) for f, _, names in os.walk(top) for n in names}
with open(top + "/big", "rb") as big:
    big.seek(50_000_000); middle = big.read(784).hex()
try: open(top + "/new", "w"); wrote = True
except OSError as error: wrote = error.strerror
print(json.dumps({"files": found, "middle": middle, "wrote": wrote, "kind": [l.split()[2] for l in open("/proc/mounts") if top in l]}))
"""


async def test_a_lazy_mount_reads_like_files(
    fuse: None,
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
) -> None:
    files = {
        "big": noise(64 * MIB),
        "a/small": b"one",
        "a/b/deep name é&<.txt": b"two",
        "empty": b"",
    }
    data = await dataset(objects, files)
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    for run_id in ("run1", "run2"):
        await publish(bus, submitted(run_id, READS, data), 1)
        exited = (await wait_until(lambda: of(watch, run_id), 60))[0]  # noqa: B023
        assert exited.exit.succeeded, watch.log.decode()
        told = json.loads(watch.log.decode())
        assert told["files"] == {
            name: hashlib.sha256(each).hexdigest() for name, each in files.items()
        }
        assert told["middle"] == files["big"][50_000_000:50_000_784].hex()
        assert told["wrote"] == "Read-only file system"
        assert "fuse.rclone" in told["kind"]
        (prepared,) = [log for log in exited.exit.logs if log.path == PREPARED]
        assert prepared.bytes > 0
        await wait_until(lambda: not (tmp_path / f"executor/attempts/{run_id}-1").exists())  # noqa: B023
        watch.log = b""
    assert mounted(tmp_path) == []
    assert list((tmp_path / "executor/parts").iterdir()) == []  # complete, so it is in the cache
    big = hashlib.sha256(files["big"]).hexdigest()
    assert (tmp_path / f"executor/cache/{big[:2]}/{big}").read_bytes() == files["big"]


def of(watch: Watcher, run_id: str) -> list[Any]:
    return [event for event in watch.of(AttemptExited) if event.run_id == run_id]


WAITS = """
import os, sys, time
top = sys.argv[1]
print("up", len(os.listdir(top)), flush=True)
while not os.path.exists("go"): time.sleep(0.02)
try: print("read", len(open(top + "/big", "rb").read()))
except OSError as error: print("error", error.strerror)
"""


async def test_it_goes_on_while_the_executor_is_away(
    fuse: None,
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
) -> None:
    data = await dataset(objects, {"big": noise(40 * MIB, "away")})
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    first = await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, submitted("run1", WAITS, data), 1)
    await wait_until(lambda: b"up 1" in watch.log, 30)
    await first.stop()
    assert len(mounted(tmp_path)) == 1
    (tmp_path / "executor/attempts/run1-1/work/go").touch()  # it reads before we are back
    await start(runtime_factory, s3_settings, tmp_path)
    (exited,) = await wait_until(lambda: of(watch, "run1"), 60)
    assert exited.exit.succeeded
    assert watch.log.endswith(f"read {40 * MIB}\n".encode()), watch.log
    await wait_until(lambda: not mounted(tmp_path))


async def test_a_killed_mount_is_an_error_of_the_run_and_is_undone(
    fuse: None,
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
) -> None:
    data = await dataset(objects, {"big": noise(40 * MIB, "killed")})
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, submitted("run1", WAITS, data), 1)
    await wait_until(lambda: b"up 1" in watch.log, 30)
    folder = tmp_path / "executor/attempts/run1-1"
    os.kill(json.loads((folder / "mounts.json").read_text())[0]["pid"], signal.SIGKILL)
    await wait_until(lambda: "its mount has ended" in (folder / PREPARED).read_text())
    (folder / "work/go").touch()
    (exited,) = await wait_until(lambda: of(watch, "run1"), 30)
    assert exited.exit.succeeded
    assert watch.log.endswith(b"error Transport endpoint is not connected\n"), watch.log
    await wait_until(lambda: not mounted(tmp_path) and not folder.exists())


async def test_what_an_executor_left_mounted_is_swept(
    fuse: None,
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
) -> None:
    data = await dataset(objects, {"big": noise(40 * MIB, "left")})
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    first = await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, submitted("run1", WAITS, data), 1)
    await wait_until(lambda: b"up 1" in watch.log, 30)
    folder = tmp_path / "executor/attempts/run1-1"
    rclone = json.loads((folder / "mounts.json").read_text())[0]["pid"]
    await first.stop()
    (folder / "mounts.json").unlink()
    (tmp_path / "ex").rename(tmp_path / "lost")  # its database: nobody knows the run any more
    await start(runtime_factory, s3_settings, tmp_path)
    await wait_until(lambda: not mounted(tmp_path) and not folder.exists(), 30)
    await wait_until(lambda: ended(rclone))


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


async def test_canceled_while_it_reads(
    fuse: None,
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
) -> None:
    data = await dataset(objects, {"big": noise(40 * MIB, "cancel")})
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, submitted("run1", WAITS, data), 1)
    await wait_until(lambda: b"up 1" in watch.log, 30)
    stop = {"attempt": 1, "node_id": "cpu-0-local", "executor_id": "local", "reason": "canceled"}
    await publish(bus, RunStopRequested(run_id="run1", grace_s=1.0, **stop), 2)
    (exited,) = await wait_until(lambda: of(watch, "run1"), 30)
    assert exited.exit.reason == "canceled"
    await wait_until(lambda: not mounted(tmp_path))


async def test_without_rclone_it_is_fetched_and_said(
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
    monkeypatch: Any,
) -> None:
    real = shutil.which
    monkeypatch.setattr(shutil, "which", lambda name: None if name == "rclone" else real(name))
    data = await dataset(objects, {"big": noise(MIB)})
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, submitted("run1", WAITS.replace('"go"', '"main.py"'), data), 1)
    (exited,) = await wait_until(lambda: of(watch, "run1"), 30)
    assert exited.exit.succeeded
    assert f"read {MIB}".encode() in watch.log
    assert watch.logs[PREPARED] == (
        b"input 'data': fetched before the start, although a lazy mount was asked for: rclone is not "
        b"installed (apt-get install rclone) (1 files, 1.0 MiB, of it 1.0 MiB not on this node yet)\n"
    )


async def test_a_corrupt_blob_is_an_error_of_the_read(
    fuse: None,
    runtime_factory: Any,
    bus: Bus,
    s3_settings: Any,
    objects: ObjectStore,
    tmp_path: Path,
) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    await objects._run(lambda: objects._put(digest, __import__("io").BytesIO(b"wrong"), 5))
    entry = ManifestEntry(path="big", size=5, sha256=digest)
    manifest = await objects.put_manifest(Manifest(entries=(entry,)))
    data = (await dataset(objects, {})).model_copy(update={"manifest": manifest, "files": 1})
    watch = Watcher()
    await watch.start(bus)
    await runtime_factory("scheduler", ServiceSettings, scheduler)
    await start(runtime_factory, s3_settings, tmp_path)
    await publish(bus, submitted("run1", WAITS.replace('"go"', '"main.py"'), data), 1)
    (exited,) = await wait_until(lambda: of(watch, "run1"), 60)
    assert exited.exit.succeeded
    assert b"error " in watch.log


async def test_a_word_counts_when_the_mount_is_there(tmp_path: Path) -> None:
    """Another process says "ready" to the socket whose name it can see."""
    quiet = await asyncio.create_subprocess_exec("sleep", "60")
    pidfd = os.pidfd_open(quiet.pid)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told, \
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:  # fmt: skip
        told.bind("")
        told.setblocking(False)
        other.sendto(b"READY=1", told.getsockname())
        waiting = asyncio.ensure_future(rclone._told(told, pidfd, tmp_path))
        try:
            await wait_until(lambda: not select.select([told], [], [], 0)[0])  # heard
            assert not waiting.done()
        finally:
            quiet.kill()
        await waiting  # its end is the other word
    await quiet.wait()
    os.close(pidfd)


def manifest_of(*sizes: int) -> Manifest:
    entries = [
        ManifestEntry(path=f"f{n}", size=size, sha256=f"{n:064x}") for n, size in enumerate(sizes)
    ]
    return Manifest(entries=tuple(entries))


@pytest.mark.parametrize(
    ("sizes", "cached", "forced", "unavailable", "lazy", "words"),
    [
        ((300 * MIB,), (), None, "", True, "mounted lazily: 256.0 MiB or more to fetch"),
        ((300 * MIB,), (0,), None, "", False, "linked from the node's cache"),
        ((10 * MIB,), (), None, "", False, "of it 10.0 MiB not on this node yet"),
        ((10 * MIB,), (), True, "", True, "mounted lazily, as asked for"),
        ((300 * MIB,), (), False, "", False, "fetched before the start, as asked for"),
        ((300 * MIB,), (), None, "no FUSE", False, "fetched before the start: no FUSE"),
        ((300 * MIB,), (), True, "no FUSE", False, "although a lazy mount was asked for: no FUSE"),
        ((100_000,) * 3000, (), None, "", False, "many small files"),
    ],
)
def test_the_choice_and_its_reason(
    sizes: tuple[int, ...], cached: tuple[int, ...], forced: bool | None, unavailable: str, lazy: bool, words: str
) -> None:  # fmt: skip
    here = {f"{n:064x}" for n in cached}
    made = choose(manifest_of(*sizes), here, forced=forced, unavailable=unavailable, threshold=256 * MIB)  # fmt: skip
    assert made.lazy == lazy
    assert words in made.why


AROUND = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
23 22 0:5 / /proc rw - proc proc rw
30 22 254:0 /lib/stellwerk/1 /data rw,relatime shared:7 - ext4 /dev/vda rw
32 30 254:0 /größe /data/größe\u00a0\u0085x rw,relatime - ext4 /dev/vda rw
31 22 254:0 /volumes/x /data\\040of\\040mine rw,relatime master:7 - ext4 /dev/vda rw
"""


@pytest.mark.parametrize(
    ("folder", "shared"),
    [
        ("/data/attempts", True),
        ("/data/größe\u00a0\u0085x/attempts", False),
        ("/data of mine/attempts", False),
        ("/data2", False),
        ("/", False),
    ],
)
def test_whether_a_folder_shares_its_mounts(folder: str, shared: bool) -> None:
    assert rclone._shared(Path(folder), AROUND) is shared


def test_mounts_are_found_by_the_names_the_kernel_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only blanks, ends of lines and backslashes are written in octal."""
    place = tmp_path / "Straße \\ 1" / "ÄÜ"
    told = str(place).replace("\\", "\\134").replace(" ", "\\040")
    lines = (
        f"9 1 0:9 / {told} ro - fuse.rclone :webdav: ro\n8 1 0:8 / /other ro - fuse.rclone x ro\n"
    )
    monkeypatch.setattr(rclone, "_mountinfo", lambda: lines)
    assert rclone.mounted(tmp_path) == [place]


def test_what_runs_in_containers_would_not_see(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "fuse.conf"
    monkeypatch.setattr(rclone, "FUSE_CONF", conf)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "only with user_allow_other in" in rclone.unseen(tmp_path, elsewhere=False)
    conf.write_text("#user_allow_other\n")
    assert "only with user_allow_other in" in rclone.unseen(tmp_path, elsewhere=False)
    conf.write_text("mount_max = 10\n user_allow_other\n")
    assert rclone.unseen(tmp_path, elsewhere=False) == ""
    monkeypatch.setattr(rclone, "_shared", lambda _folder, _mounts: False)
    assert "does not share its mounts with the machine" in rclone.unseen(tmp_path, elsewhere=True)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    conf.unlink()
    assert rclone.unseen(tmp_path, elsewhere=False) == ""
