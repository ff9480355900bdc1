"""Rclone as a mount of one dataset: its process, the kernel's list of mounts, and an end to one."""

import asyncio
import os
import re
import secrets
import shutil
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from stellwerk_gpu_executor import processes

READY_S = 20.0
WORD_BYTES = 4096
FUSE_CONF = Path("/etc/fuse.conf")
OCTAL = re.compile(r"\\([0-7]{3})")
OPTIONS = (
    *("--read-only", "--vfs-cache-mode", "off", "--no-modtime", "--no-checksum"),
    *("--dir-cache-time", "8760h", "--attr-timeout", "8760h", "--poll-interval", "0"),
    *("--buffer-size", "4M", "--max-read-ahead", "1M", "--low-level-retries", "10"),
    *("--config", "/dev/null", "--log-level", "NOTICE"),
)


class MountError(Exception):
    """A mount could not be made; the text says why."""


async def start(place: Path, output: Path, token: str, port: int) -> tuple[int, int]:
    """Start rclone in a session of its own; returns its id and pidfd when the mount is there.

    Raises MountError, OSError.
    """
    env = {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "HOME": "/nonexistent",
        "GOMEMLIMIT": "96MiB",
        "RCLONE_WEBDAV_URL": f"http://127.0.0.1:{port}",
        "RCLONE_WEBDAV_VENDOR": "other",
        "RCLONE_WEBDAV_BEARER_TOKEN": token,
    }
    real = place.resolve()  # as the kernel names it; before it is a mount, which only we can answer
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(f"\0stellwerk-mount-{secrets.token_hex(8)}")
        told.setblocking(False)
        address: bytes = told.getsockname()
        pid = _spawn(place, output, env | {"NOTIFY_SOCKET": f"@{address[1:].decode()}"})
        pidfd = os.pidfd_open(pid)
        try:
            await _told(told, pidfd, real)
            if processes.has_ended(pidfd):
                last = output.read_text(errors="replace").strip().splitlines()[-1:]
                raise MountError(f"rclone ended: {' '.join(last)[-300:]}")
        except BaseException:
            os.kill(pid, 9)  # ours until it is waited for
            os.close(pidfd)
            await asyncio.to_thread(os.waitpid, pid, 0)
            raise
    return pid, pidfd


def _spawn(place: Path, output: Path, env: dict[str, str]) -> int:
    command = [str(shutil.which("rclone")), "mount", ":webdav:", str(place), *OPTIONS]
    if others_allowed():
        command.append("--allow-other")  # the engine and containers are other users
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    return os.posix_spawn(
        command[0],
        command,
        env,
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(output), flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
        setsigmask=[],
    )


async def _told(told: socket.socket, pidfd: int, place: Path) -> None:
    """Wait for rclone's word that the mount is there, or for its end.

    Any process of the machine can send such a word: it counts when the kernel has the mount.
    """
    loop, event = asyncio.get_running_loop(), asyncio.Event()
    for descriptor in (told.fileno(), pidfd):
        loop.add_reader(descriptor, event.set)
    try:
        async with asyncio.timeout(READY_S):
            while not processes.has_ended(pidfd) and not mounted(place):
                await event.wait()
                event.clear()
                with suppress(BlockingIOError):
                    told.recv(WORD_BYTES)
    except TimeoutError as error:
        raise MountError(f"rclone did not mount within {READY_S:g} s") from error
    finally:
        for descriptor in (told.fileno(), pidfd):
            loop.remove_reader(descriptor)


def missing() -> str:
    """Why this machine cannot mount lazily, or ''."""
    for program, package in (("rclone", "rclone"), ("fusermount3", "fuse3")):
        if shutil.which(program) is None:
            return f"{program} is not installed (apt-get install {package})"
    if os.access("/dev/fuse", os.R_OK | os.W_OK):
        return ""
    if Path("/.dockerenv").exists():
        return "this executor is a container without /dev/fuse (deploy/docker/mounts.yml gives it)"
    return "/dev/fuse cannot be used here"


def unseen(folder: Path, *, elsewhere: bool) -> str:
    """Why runs in containers would not see what is mounted below ``folder``, or ''.

    ``elsewhere``: we are in a container ourselves, so the engine has to get our mounts.
    """
    if not others_allowed():
        return (
            "runs are containers, which may read a mount of this executor's user only with "
            f"user_allow_other in {FUSE_CONF}"
        )
    if elsewhere and not _shared(folder, _mountinfo()):
        return (
            "this executor is a container that does not share its mounts with the machine "
            "(deploy/docker/mounts.yml lets it)"
        )
    return ""


def others_allowed() -> bool:
    """Whether a mount of ours may be open to other users of the machine."""
    if os.geteuid() == 0:
        return True
    try:
        lines = FUSE_CONF.read_text().splitlines()
    except OSError:
        return False
    return "user_allow_other" in (line.strip() for line in lines)


def _shared(folder: Path, mountinfo: str) -> bool:
    """Whether what is mounted below ``folder`` appears in other namespaces as well."""
    folder, around = folder.resolve(), dict[Path, bool]()
    for fields in _fields(mountinfo):
        place = _place(fields)
        if folder.is_relative_to(place):
            around[place] = any(
                each.startswith("shared:") for each in fields[6 : fields.index("-")]
            )
    return around[max(around, key=lambda place: len(place.parts))]


def mounted(below: Path) -> list[Path]:
    """Places of our mounts below a folder, deepest first."""
    found = []
    for fields in _fields(_mountinfo()):
        kind = fields[fields.index("-") + 1]
        place = _place(fields)
        if kind == "fuse.rclone" and place.is_relative_to(below):
            found.append(place)
    return sorted(found, reverse=True)


def _mountinfo() -> str:
    """The kernel's list of mounts, where names are any bytes."""
    return os.fsdecode(Path("/proc/self/mountinfo").read_bytes())


def _fields(mountinfo: str) -> list[list[str]]:
    """Its lines; other blanks and ends of lines than these are part of names."""
    return [line.split(" ") for line in mountinfo.split("\n") if line]


def _place(fields: list[str]) -> Path:
    """Where a line of mountinfo's mount is; the kernel writes blanks and backslashes in octal."""
    return Path(OCTAL.sub(lambda found: chr(int(found[1], 8)), fields[4]))


def unmount(place: Path) -> None:
    """Detach a mount at once; who still has files of it open gets errors."""
    subprocess.run(
        [shutil.which("fusermount3") or "fusermount3", "-u", "-z", "-q", str(place)],
        check=False, capture_output=True, timeout=READY_S,
    )  # fmt: skip
