"""Lazy mounts where executors are containers and runs are containers beside them."""

import errno
import hashlib
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from composed import Composed, prepared, reads, register, started, until_running
from stack import log_text, submit, wait_terminal

from stellwerk_gpu_executor.rclone import mounted
from stellwerk_kit.testing.waiting import wait_until

MIB = 1024 * 1024


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder of this machine whose mounts are shared, as all are where systemd is."""
    folder = Path(tempfile.mkdtemp(prefix="sw-mounts-"))
    for words in (("--bind", str(folder), str(folder)), ("--make-shared", str(folder))):
        subprocess.run(["mount", *words], check=True)
    for name in ("1", "2", "gpu"):
        (folder / name).mkdir()
    yield folder
    left = mounted(folder)
    for place in [*left, folder]:
        subprocess.run(["umount", "-l", str(place)], check=True)
    shutil.rmtree(folder)
    assert left == []


@pytest.fixture(scope="module")
def platform(folder: Path) -> Iterator[Composed]:
    with started(Composed(containers=True, mounts=folder)) as composed:
        yield composed


READS = """
import hashlib, json, os, sys
top = os.path.dirname(sys.argv[1])
with open(sys.argv[1], "rb") as big:
    big.seek(30_000_000)
    middle = big.read(784).hex()
    big.seek(0)
    digest = hashlib.sha256(big.read()).hexdigest()
try:
    open(f"{top}/new", "w")
    wrote = "yes"
except OSError as error:
    wrote = error.strerror
kinds = [line.split()[2] for line in open("/proc/mounts") if line.split()[1] == top]
print(json.dumps({"middle": middle, "digest": digest, "wrote": wrote, "kinds": kinds,
                  "fuse": os.path.exists("/dev/fuse")}))
"""


async def test_a_run_in_a_container_reads_a_lazy_mount(
    platform: Composed, folder: Path, tmp_path: Path
) -> None:
    content = register(platform, tmp_path, "big", 64 * MIB)
    with platform.http() as http:
        run = submit(http, reads("big", READS))
        view = wait_terminal(http, run, 120)
        assert view["status"] == "Completed", (view["error"], log_text(http, run).decode())
        told = json.loads(log_text(http, run))
    assert "mounted lazily, as asked for" in prepared(platform, run)
    assert told == {
        "middle": content[30_000_000:30_000_784].hex(),
        "digest": hashlib.sha256(content).hexdigest(),
        "wrote": "Read-only file system",
        "kinds": ["fuse.rclone", "fuse.rclone"],  # with its attempt's folder, and read-only
        "fuse": False,
    }
    await wait_until(lambda: platform.runs() == [], 30)
    await wait_until(lambda: mounted(folder) == [], 30)


HOLDS = """
import sys, time
while True:
    with open(sys.argv[1], "rb") as big:
        big.read(100)
    print(".", end="", flush=True)
    time.sleep(0.1)
"""


async def test_a_killed_executor_is_an_error_of_the_read_and_leaves_no_mount(
    platform: Composed, folder: Path, tmp_path: Path
) -> None:
    """rclone ends with the executor's container; the run is told so and nothing stays mounted."""
    register(platform, tmp_path, "held", 8 * MIB)
    with platform.http() as http:
        run = submit(http, reads("held", HOLDS))
        until_running(platform, run)
        await wait_until(lambda: len(mounted(folder)) == 1, 30)
        for executor in ("executor-1", "executor-2"):
            platform.kill(executor)
        assert wait_terminal(http, run, 120)["status"] == "Failed"
        said = log_text(http, run).decode()
    # A read that was under way is broken off (ECONNABORTED), one after it finds nobody (ENOTCONN).
    assert any(f"[Errno {number}]" in said for number in (errno.ECONNABORTED, errno.ENOTCONN)), said
    assert "its mount has ended" in prepared(platform, run)
    await wait_until(lambda: platform.runs() == [], 60)
    await wait_until(lambda: mounted(folder) == [], 60)
    platform.wait_healthy()
