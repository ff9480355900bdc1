"""Checks of the machine: space, file system, memory, clock, limits, isolation."""

import ctypes
import os
import resource
import shutil
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from stellwerk.sizes import size_text
from stellwerk_embedded import in_force
from stellwerk_embedded.doctor import Check, Finding, State, judge
from stellwerk_embedded.layout import LONGEST_SOCKET_PATH, Layout
from stellwerk_kit.clock import SystemClock

NEEDED_DISK = 5_000_000_000
NEEDED_MEMORY = 3_000_000_000
NEEDED_FILES = 1024
LOCAL = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "zfs", "f2fs", "overlay"})
"""File systems known to keep what they have acknowledged."""
VOLATILE = frozenset({"tmpfs", "ramfs"})
BUILT = datetime(2026, 11, 1, tzinfo=UTC)
"""No right clock shows a time before this release."""
TIME_ERROR = 5


def disk(layout: Layout) -> Finding:
    """Free space where the data lie."""
    usage = shutil.disk_usage(_existing(layout.home))
    share = 1 - usage.free / usage.total
    found = f"{size_text(usage.free)} free of {size_text(usage.total)}, {share:.0%} used"
    fix = "Free some space, or use another folder: stellwerk up --data DIR."
    if usage.free < NEEDED_DISK:
        return Finding("disk", "problem", found, f"{size_text(NEEDED_DISK)} are needed. {fix}")
    state: State = "warning" if share > 0.85 else "ok"
    return Finding("disk", state, found, fix if state != "ok" else "")


def file_system(layout: Layout) -> Finding:
    """Kind of the file system: the broker's and the stores' promises rest on it."""
    kind = _file_system(_existing(layout.home).resolve())
    if kind in VOLATILE:
        fix = "All data go with a restart of the machine; use a folder on a disk: --data DIR."
        return Finding("file system", "warning", kind, fix)
    fix = "Use a folder on a local ext4 or xfs: network file systems lose locks and writes."
    return judge("file system", kind, fix, ok=kind in LOCAL, otherwise="warning")


def memory(_: Layout) -> Finding:
    """Memory for the platform and one run."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fix = "The platform takes 0.9 GB and a Keras run 1 to 2; expect swapping or killed runs."
    found = size_text(total)
    return judge("memory", found, fix, ok=total >= NEEDED_MEMORY, otherwise="warning")


def clock(layout: Layout) -> Finding:
    """Whether the clock can be right: not before this release, not before our own files."""
    now = SystemClock().now()
    files = [layout.client_file, layout.state_file, *layout.logs.glob("*.log")]
    written = [path.stat().st_mtime for path in files if path.exists()]
    newest = datetime.fromtimestamp(max(written, default=0), UTC)
    found = now.strftime("%Y-%m-%d %H:%M:%S UTC")
    fix = "Set the clock (timedatectl set-ntp true): signatures are refused when it is wrong."
    if now < BUILT:
        return Finding("clock", "problem", f"{found}, before this release", fix)
    if newest - now > timedelta(minutes=10):
        return Finding("clock", "problem", f"{found}, before our own files of {newest:%F %T}", fix)
    steered = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(512)) != TIME_ERROR
    return Finding("clock", "ok", f"{found}{'' if steered else ' (not steered by NTP)'}")


def open_files(_: Layout) -> Finding:
    """Limit of open files of one process."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    fix = f"ulimit -n {4096 if hard < 0 else min(4096, hard)}, then stellwerk up"
    found = f"{soft} (at most {hard})"
    return judge("open files", found, fix, ok=soft >= NEEDED_FILES, otherwise="warning")


def socket_paths(layout: Layout) -> Finding:
    """Whether a run can reach its own socket, whose path Linux limits."""
    longest = layout.executor / "attempts" / ("x" * 40) / "99" / "run.sock"
    length = len(os.fsencode(longest))
    found = f"at most {length} bytes, {LONGEST_SOCKET_PATH} are allowed"
    fix = f"Use a folder with a shorter path: --data DIR, {length - LONGEST_SOCKET_PATH} less."
    return judge("socket paths", found, fix, ok=length <= LONGEST_SOCKET_PATH, otherwise="warning")


def isolation(layout: Layout) -> Finding:
    """What keeps runs apart and within limits, as the executor finds it."""
    told = _executor(layout)
    limits = ", ".join(told["limits"]) or "nothing"
    if told["sandbox"]:
        found = f"runs are sandboxed by bubblewrap; the kernel limits {limits}"
        return Finding("isolation", "ok", found)
    found = f"runs are plain processes of this user; the kernel limits {limits}"
    return Finding("isolation", "warning", found, f"{told['missing']}; see docs/howto/sandbox.md")


def lazy_mounts(layout: Layout) -> Finding:
    """Whether large inputs can be read while they are fetched."""
    lacks = _executor(layout)["no_mounts"]
    found = "large inputs are mounted by rclone" if not lacks else "inputs are fetched whole"
    fix = f"{lacks}; see docs/howto/datasets.md"
    return judge("lazy mounts", found, fix, ok=not lacks, otherwise="warning")


@cache
def _executor(layout: Layout) -> dict[str, Any]:
    """What the executor finds on this machine. Raises OSError when it cannot be asked."""
    return in_force.of(layout, "gpu-executor").ask("stellwerk_gpu_executor.isolation")


def _existing(path: Path) -> Path:
    return next(each for each in (path, *path.parents) if each.exists())


def _file_system(path: Path) -> str:
    """Type of the mount with the longest path above ``path``."""
    best, kind = "", "unknown"
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, found, *_ = line.split()
        where = where.replace("\\040", " ")
        if len(where) >= len(best) and path.is_relative_to(where):
            best, kind = where, found
    return kind


CHECKS: tuple[Check, ...] = (
    disk,
    file_system,
    memory,
    clock,
    open_files,
    socket_paths,
    isolation,
    lazy_mounts,
)
