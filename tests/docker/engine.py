"""A Docker engine for tests: the one that answers, else one that is started and ended here.

Never a second one beside a running one: on the same network it would take the first's bridge away.
"""

import fcntl
import functools
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import psutil
from docker.errors import DockerException

READY_S = 60.0


def cache_folder() -> Path:
    """What tests build once and keep, outside the repository: ``$STELLWERK_TEST_CACHE``."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(os.environ.get("STELLWERK_TEST_CACHE") or Path(base) / "stellwerk-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@functools.cache
def client() -> docker.DockerClient:
    """The one connection of the tests; :func:`engine` closes it."""
    return docker.from_env(timeout=120)


def answers() -> bool:
    """Whether an engine answers where ``$DOCKER_HOST``, or the default, says."""
    where = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if where.startswith("unix://"):  # the client library leaves the socket of a refusal behind
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(where.removeprefix("unix://"))
            except OSError:
                return False
    try:
        client = docker.from_env(timeout=10)
        try:
            return bool(client.ping())
        finally:
            client.close()
    except DockerException:
        return False


def install() -> None:
    """Debian's packages of the engine and of what images are made with, where one is missing."""
    script = Path(__file__).parents[2] / "deploy" / "host-packages"
    done = subprocess.run([script, "docker"], capture_output=True, text=True, check=False)
    if shutil.which("dockerd") is None:
        raise RuntimeError(
            "no Docker engine answers and none can be installed here; start one, or set "
            f"DOCKER_HOST:\n{done.stdout}{done.stderr}"
        )


@contextmanager
def engine(run: Path) -> Iterator[None]:
    """An engine that answers ``docker.from_env()``; ``run`` is a short folder for its socket.

    Two test runs take turns: each clears away what builds of the other have made.
    """
    with (cache_folder() / "engine.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with _answering(run):
            yield


@contextmanager
def _answering(run: Path) -> Iterator[None]:
    if answers():
        yield
        client().close()
        return
    others = [
        process.pid
        for process in psutil.process_iter(["name"])
        if process.info["name"] == "dockerd"
    ]
    if others:
        raise RuntimeError(f"dockerd runs (pid {others}) and does not answer; see to it first")
    install()
    address = f"unix://{run / 'docker.sock'}"
    with (run / "dockerd.log").open("ab") as log:
        process = subprocess.Popen(
            ["dockerd", "--data-root", str(cache_folder() / "engine"), "--exec-root", str(run / "exec"),
             "-p", str(run / "dockerd.pid"), "-H", address, "--log-level", "warn"],
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    before, os.environ["DOCKER_HOST"] = os.environ.get("DOCKER_HOST"), address
    try:
        deadline = time.monotonic() + READY_S
        while not answers():
            if process.poll() is not None or time.monotonic() > deadline:
                tail = (run / "dockerd.log").read_text(errors="replace")[-3000:]
                raise RuntimeError(f"no Docker engine could be started:\n{tail}")
            time.sleep(0.1)
        yield
        client().close()
    finally:
        process.terminate()
        process.wait(30)
        if before is None:
            del os.environ["DOCKER_HOST"]
        else:
            os.environ["DOCKER_HOST"] = before
