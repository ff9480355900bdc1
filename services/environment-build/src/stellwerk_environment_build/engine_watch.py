"""Watches the engine's machine while BuildKit builds, whose steps have no limits of their own.

Steps of BuildKit are no containers: the engine bounds neither their memory nor what they write, nor
does it show them. So a container without any rights tells what the machine has left, and a build
ends before it is nothing.
"""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from docker.errors import APIError, NotFound
from docker.types import LogConfig

from stellwerk_environment_build.beside import beside
from stellwerk_environment_build.failures import BuildFailedError, Failure
from stellwerk_environment_build.image_engine import (
    NAME,
    TROUBLE,
    Client,
    ImageSettings,
    connect,
    need_base,
    remove,
)
from stellwerk_environment_build.image_failures import memory_short, of_image, wrote_too_much

MEMORY_KEPT = 0.05
"""A build ends when less than this part of the machine's memory is available."""
_FEW_WORDS = LogConfig(type="json-file", config={"max-size": "64k", "max-file": "1"})
_TELL = """\
import os, sys, time
kept, told = float(sys.argv[1]), 0.0
while True:
    with open("/proc/meminfo") as file:
        memory = dict(line.split()[:2] for line in file)
    available, total = int(memory["MemAvailable:"]), int(memory["MemTotal:"])
    if available < total * kept or time.monotonic() - told >= 0.5:
        disk = os.statvfs("/")
        print(disk.f_bavail * disk.f_frsize, available, total, flush=True)
        told = time.monotonic()
    time.sleep(0.02)
"""
"""Memory can be gone within a second, so it is looked at more often than told."""


@contextmanager
def watched(
    client: Client, mark: str, settings: ImageSettings, end: Callable[[Failure], None]
) -> Iterator[None]:
    """Call ``end`` once, from another thread, when the build in the block has to end.

    Raises BuildFailedError where the base image is not there, or is another one than it should be.
    """
    base = need_base(client, settings)
    name = f"{NAME}{mark}-watch"
    with suppress(NotFound):
        remove(client.containers.get(name))
    container = client.containers.create(
        base.id, entrypoint=["python3", "-I", "-S", "-c", _TELL, str(MEMORY_KEPT)],
        name=name, user="65534", network_mode="none", use_config_proxy=False,
        cap_drop=["ALL"], read_only=True, log_config=_FEW_WORDS, pids_limit=16, mem_limit=64 << 20,
        security_opt=["no-new-privileges=true"], environment={"LD_PRELOAD": ""},
    )  # fmt: skip
    try:
        try:
            container.start()
        except APIError as error:
            raise BuildFailedError(of_image("python")) from error
        with beside("engine-watch", lambda over: _watch(name, settings.max_bytes, end, over)):
            yield
    finally:
        remove(container)


def _watch(
    name: str, max_bytes: int, end: Callable[[Failure], None], over: threading.Event
) -> None:
    first: int | None = None
    with (
        suppress(*TROUBLE, ValueError),
        connect() as client,
        closing(_told(client.containers.get(name))) as told,
    ):
        for free, available, total in told:
            first = free if first is None else first
            if over.is_set():
                return
            if first - free > max_bytes:
                end(wrote_too_much(max_bytes))
                return
            if available < total * MEMORY_KEPT:
                end(memory_short())
                return
    if not over.is_set():
        end(of_image("engine"))


def _told(container: Any) -> Generator[tuple[int, int, int]]:
    """Free bytes of the engine's disk, available and whole memory in kB.

    Twice a second, and at once when memory is short.
    """
    pending = b""
    chunks = container.logs(stream=True, follow=True, stderr=False)
    # The stream's own close leaves its answer open, and the socket to the collector.
    with closing(chunks._response):  # noqa: SLF001
        for chunk in chunks:
            *whole, pending = (pending + chunk).split(b"\n")
            for line in whole:
                free, available, total = map(int, line.split())
                yield free, available, total
