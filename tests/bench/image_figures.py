"""Environments as images and runs in containers, beside plain installs and plain processes."""

import asyncio
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from conda_images import conda_images
from image_builds import PYTHON, image_builds
from latency import HELLO, follow
from measure import Report, SkippedError, summary
from stack import Stack, request, run_body, submit

DOCKER_TESTS = Path(__file__).parents[1] / "docker"
ROUNDS = 7


def containers(stack: Stack, report: Report) -> None:
    """Submit → first line of a run in a container, over the same as a plain process."""
    with _engine() as base, tempfile.TemporaryDirectory(prefix="sw-b-") as folder:
        boxed = Stack(Path(folder), STELLWERK_LAUNCHER="docker", STELLWERK_RUN_IMAGE=base)
        boxed.up()
        try:
            nodes = {"name": "bench", "max_nodes": 2, "min_nodes": 2}
            with boxed.http() as http:
                assert request("POST", http, "/compute", json=nodes).status_code < 300
            over: list[float] = []
            plain: list[float] = []
            for number in range(ROUNDS + 2):
                alone, inside = (_first_line(each) for each in (stack, boxed))
                if number >= 2:  # two rounds warm the caches of both sides
                    plain.append(alone)
                    over.append(inside - alone)
        finally:
            boxed.down()
    value = statistics.median(over)
    report.add(
        "containers.first_line_over_process", value, "s", "<= 0.5", value <= 0.5,
        process=summary(plain), **summary(over),
    )  # fmt: skip


def images(stack: Stack, report: Report) -> None:
    """A new environment as an image over the bare install of its lock; one more package; a node."""
    del stack
    with _engine() as base, tempfile.TemporaryDirectory(prefix="sw-b-") as folder:
        asyncio.run(image_builds(base, Path(folder), report))


def conda(stack: Stack, report: Report) -> None:
    """A second image of mostly the same conda packages, over the first."""
    del stack
    with _engine() as base, tempfile.TemporaryDirectory(prefix="sw-b-") as folder:
        conda_images(base, Path(folder), report)


def _first_line(stack: Stack) -> float:
    environment = {"user_managed": True, "interpreter": PYTHON}
    body = run_body(HELLO, target="bench", environment=environment, warm="never")
    with stack.http() as http:
        started = time.perf_counter()
        first, _ = follow(http, submit(http, body))
    return first - started


@contextmanager
def _engine() -> Iterator[str]:
    """An engine and the base image of the docker tests; ``tests/docker`` says what that needs."""
    if os.geteuid() != 0 or shutil.which("dockerd") is None or not Path(PYTHON).exists():
        raise SkippedError(f"a Docker engine, root and {PYTHON}: deploy/host-packages docker")
    sys.path.append(str(DOCKER_TESTS))
    from engine import engine
    from images import base

    with tempfile.TemporaryDirectory(prefix="sw-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with engine(Path(folder)):
            yield base()


FIGURES: dict[str, Callable[[Stack, Report], None]] = {
    "containers": containers,
    "images": images,
    "conda": conda,
}
