"""Environments as images and runs in containers, beside plain installs and plain processes."""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from latency import HELLO, follow
from measure import Report, SkippedError, summary, timed
from stack import Stack, request, run_body, submit

DOCKER_TESTS = Path(__file__).parents[1] / "docker"
PACKAGES = ("tensorflow-cpu==2.21.*",)
ADDED = "six-extra-figure"
ROUNDS = 7
BUILDS = 2
PYTHON = "/usr/bin/python3.11"
"""Debian's: on this machine and in the tests' base image at the same place."""


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
    """A new environment as an image over the bare install of its lock; one more package; again."""
    del stack
    with _engine() as base, tempfile.TemporaryDirectory(prefix="sw-b-") as folder:
        asyncio.run(_images(base, Path(folder), report))


async def _images(base: str, folder: Path, report: Report) -> None:
    from stellwerk.environment_spec import from_packages
    from stellwerk_environment_build import uv_command
    from stellwerk_environment_build.builder import Builder
    from stellwerk_environment_build.cache import LOCK, EnvironmentCache
    from stellwerk_environment_build.image_engine import ImageSettings
    from stellwerk_environment_build.images import ImageMaker
    from stellwerk_environment_build.interpreters import find_interpreters
    from stellwerk_environment_build.uv_command import IndexOptions

    _wheel(folder / "wheels")
    cache = EnvironmentCache(folder / "cache")
    pythons = [
        each for each in await find_interpreters((Path(PYTHON),)) if str(each.path) == PYTHON
    ]
    builder = Builder(
        cache, pythons, index=IndexOptions(find_links=(folder / "wheels",)),
        images=ImageMaker(ImageSettings(base)),
    )  # fmt: skip
    environ = uv_command.uv_environment(
        os.environ, cache=cache.installer_cache, config_file=uv_command.operator_config(os.environ)
    )
    spec, identity = builder.identify(from_packages(PACKAGES))
    ours: list[float] = []
    bare: list[float] = []
    compiled: list[float] = []
    log: list[str] = []
    try:
        await builder.build(spec, identity, lambda _: None)  # fills the package cache
        shutil.copy(cache.path(identity) / LOCK, folder / LOCK)
        for _ in range(BUILDS):
            bare.append(_installed(folder, environ, compile_it=False))
            compiled.append(_installed(folder, environ, compile_it=True))
            cache.discard(identity)  # else it would find its modules compiled
            started = time.perf_counter()
            await builder.build(spec, identity, log.append)
            ours.append(time.perf_counter() - started)
        started = time.perf_counter()
        assert (await builder.build(spec, identity, log.append)).cached
        again = time.perf_counter() - started
        more, other = builder.identify(from_packages((*PACKAGES, ADDED)))
        log.clear()
        started = time.perf_counter()
        await builder.build(more, other, log.append)
        added = time.perf_counter() - started
    finally:
        _forget()
    ratio = statistics.median(ours) / statistics.median(bare)
    report.add(
        "images.new_over_bare_install", ratio, "ratio", "<= 3", ratio <= 3, ours=summary(ours),
        bare=summary(bare), over_compiled=round(
            statistics.median(ours) / statistics.median(compiled), 3
        ),
    )  # fmt: skip
    report.add("images.second_request", again * 1000, "ms", "<= 100", again <= 0.1)
    (layer,) = [line.strip() for line in log if "[5/5]" in line]
    report.add("images.one_package_more", added, "s", "<= 15", added <= 15, layer=layer)


def _first_line(stack: Stack) -> float:
    environment = {"user_managed": True, "interpreter": PYTHON}
    body = run_body(HELLO, target="bench", environment=environment, warm="never")
    with stack.http() as http:
        started = time.perf_counter()
        first, _ = follow(http, submit(http, body))
    return first - started


def _installed(folder: Path, environ: dict[str, str], *, compile_it: bool) -> float:
    """Seconds of the installer alone, into a new environment, from the same warm cache."""
    from stellwerk_environment_build import uv_command
    from stellwerk_environment_build.cache import LOCK

    target = folder / "bare"
    shutil.rmtree(target, ignore_errors=True)
    command = [
        uv_command.uv_binary(), "pip", "install", "--quiet", "--require-hashes",
        "-r", str(folder / LOCK), "--find-links", str(folder / "wheels"),
        "--python", str(target / "bin" / "python"),
        *(["--compile-bytecode"] if compile_it else []),
    ]  # fmt: skip

    def work() -> None:
        made = uv_command.create_command(target, Path(PYTHON))
        subprocess.run(made, env=environ, check=True, capture_output=True)
        subprocess.run(command, env=environ, check=True, capture_output=True)

    return timed(work)


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


def _forget() -> None:
    from engine import client

    for image in client().images.list(name="stellwerk/environment"):
        for tag in image.tags:
            client().images.remove(tag)


def _wheel(folder: Path) -> None:
    """The one small package that is added."""
    sys.path.append(str(DOCKER_TESTS))
    from environments import wheel

    folder.mkdir()
    wheel(folder, ADDED.replace("-", "_"))


FIGURES: dict[str, Callable[[Stack, Report], None]] = {"containers": containers, "images": images}
