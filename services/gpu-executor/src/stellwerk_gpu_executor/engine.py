"""The Docker engine as the launcher needs it: few calls, each safe to repeat, and what ends.

The engine may restart at any time: a call waits for it, at most two minutes. Calls block, so they
run on threads of their own; one more follows the engine's events.
"""

import asyncio
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import docker
import requests
import structlog
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from stellwerk_gpu_executor.container import EXECUTOR, GPUS
from stellwerk_kit.registry_logins import RegistryLogins

PATIENCE_S = 120.0
PAUSE_S = 0.5
CALL_S = 60
CLOSE_S = 1.0
THREADS = 8
ENDED = ("exited", "dead")
T = TypeVar("T")

log = structlog.get_logger()


class EngineError(Exception):
    """The engine is away, or refuses what no repetition mends; the text is for users."""


@dataclass(frozen=True, slots=True)
class State:
    """A container as the engine sees it; times and codes of one that has not ended mean nothing."""

    created_only: bool
    running: bool
    exit_code: int
    oom_killed: bool
    error: str


class Engine:
    """One engine, found as the ``docker`` command finds it (``DOCKER_HOST``)."""

    def __init__(self, executor_id: str, logins: RegistryLogins | None = None) -> None:
        self._logins = logins or RegistryLogins()
        self._label = f"{EXECUTOR}={executor_id}"
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="engine")
        self._closed = threading.Event()
        self._lock = threading.Lock()
        self._client: docker.APIClient | None = None
        self._events: Any = None
        self._follower: threading.Thread | None = None

    async def start(self, name: str, config: dict[str, Any]) -> None:
        """Make and start a container; one of that name that is there already is started."""

        def begin(client: docker.APIClient) -> None:
            try:
                _unless({409}, lambda: client.create_container_from_config(config, name))
            except ImageNotFound:
                _pull(client, config["Image"], self._logins)
                _unless({409}, lambda: client.create_container_from_config(config, name))
            client.start(name)

        await self._call(begin)

    async def state(self, name: str) -> State | None:
        """State of a container; None if there is none."""

        def look(client: docker.APIClient) -> State | None:
            try:
                container = client.inspect_container(name)
            except NotFound:
                return None
            found = container["State"]
            return State(
                created_only=found["Status"] == "created",
                running=bool(found["Running"]),
                exit_code=int(found["ExitCode"]),
                oom_killed=bool(found["OOMKilled"]),
                error=str(found["Error"]),
            )

        return await self._call(look)

    async def signal(self, name: str, number: str) -> None:
        """Send a signal to the supervisor; nothing to send it to is fine."""
        await self._call(lambda client: _unless({404, 409}, lambda: client.kill(name, number)))

    async def remove(self, name: str) -> None:
        """Remove a container, killing it first; one that is gone is fine."""
        await self._call(
            lambda client: _unless(
                {404, 409}, lambda: client.remove_container(name, v=True, force=True)
            )
        )

    async def names(self) -> list[str]:
        """Names of all containers of this executor, ended ones too."""
        filters = {"label": [self._label]}
        found = await self._call(lambda client: client.containers(all=True, filters=filters))
        return [each["Names"][0].lstrip("/") for each in found]

    async def gpus(self) -> dict[str, tuple[str, ...]]:
        """The GPUs of each container of this executor that may still use them, by its name."""
        filters = {"label": [self._label, GPUS]}
        found = await self._call(lambda client: client.containers(all=True, filters=filters))
        return {
            each["Names"][0].lstrip("/"): tuple(filter(None, each["Labels"][GPUS].split(",")))
            for each in found
            if each["State"] not in ENDED
        }

    async def own_mounts(self) -> dict[Path, Path]:
        """Our paths and those of the engine's machine, if we are a container of that engine."""

        def look(client: docker.APIClient) -> dict[Path, Path]:
            try:
                mounts = client.inspect_container(socket.gethostname())["Mounts"]
            except NotFound:
                return {}
            return {Path(each["Destination"]): Path(each["Source"]) for each in mounts}

        return await self._call(look)

    def watch(self, ended: Callable[[str], None], connected: Callable[[], None]) -> None:
        """Call ``ended`` with the name of each container that does, from now until the close.

        ``connected`` is called whenever the engine's events begin anew: what ended in between was
        not told. Both are called on the event loop.
        """
        loop = asyncio.get_running_loop()

        def follow() -> None:
            filters = {"type": ["container"], "event": ["die"], "label": [self._label]}
            while not self._closed.is_set():
                client = None
                try:
                    client = self._connect()
                    self._events = client.events(decode=True, filters=filters)
                    # The stream's own close ends the wait for news; it leaves the answer open.
                    with closing(self._events._response):  # noqa: SLF001
                        if self._closed.is_set():
                            return
                        loop.call_soon_threadsafe(connected)
                        for event in self._events:
                            loop.call_soon_threadsafe(ended, event["Actor"]["Attributes"]["name"])
                except (DockerException, requests.RequestException, OSError, RuntimeError):
                    self._drop(client)
                self._closed.wait(PAUSE_S)

        self._follower = threading.Thread(target=follow, name="engine-events", daemon=True)
        self._follower.start()

    def close(self) -> None:
        """Let go of the engine; containers go on."""
        self._closed.set()
        if self._events is not None:
            with suppress(Exception):  # whatever state the stream is in, it ends with the process
                self._events.close()
        if self._follower is not None:
            self._follower.join(CLOSE_S)
        self._threads.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()

    def _connect(self) -> docker.APIClient:
        if (client := self._client) is not None:
            return client
        made = docker.from_env(timeout=CALL_S).api  # asks the engine for its version, so unlocked
        with self._lock:
            client = self._client = self._client or made
        if client is not made:
            made.close()
        return client

    def _drop(self, client: docker.APIClient | None) -> None:
        """Connect anew the next time: the engine may be another one."""
        with self._lock:
            if self._client is client:
                self._client = None
        if client is not None:
            client.close()

    async def _call(self, work: Callable[[docker.APIClient], T]) -> T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._insist, work)

    def _insist(self, work: Callable[[docker.APIClient], T]) -> T:
        """Do it, waiting for an engine that is away."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            client = None
            try:
                client = self._connect()
                return work(client)
            except APIError as error:
                if not error.is_server_error() or "shutting down" not in str(error).lower():
                    log.error("engine refuses", action="engine_refused", error=str(error))
                    raise EngineError(
                        "the Docker engine refuses the run's container; the executor's log says why"
                    ) from error
                reason: Exception = error
            except (DockerException, requests.RequestException) as error:
                reason = error
                self._drop(client)
            if time.monotonic() > deadline or self._closed.wait(PAUSE_S):
                raise EngineError("the Docker engine does not answer") from reason
            log.warning("waiting for the engine", action="engine_wait", error=str(reason)[:200])


def _pull(client: docker.APIClient, image: str, logins: RegistryLogins) -> None:
    """Get an image from where its name says; only one by digest is sure to be the one meant."""
    failure = None
    try:
        login = logins.of(image)
        for event in client.pull(image, stream=True, decode=True, auth_config=login):
            failure = event.get("error", failure)  # read to the end: what is left would stay open
    except APIError as error:
        why = _why_not_pulled(str(error.explanation))
        raise EngineError(f"image {image} is not on this node and cannot be pulled{why}") from error
    if failure is not None:
        raise EngineError(f"image {image} cannot be pulled: {failure}"[:300])


def _why_not_pulled(words: str) -> str:
    words = words.lower()
    if "unauthorized" in words or "no basic auth" in words or "denied" in words:
        return ": its registry refuses STELLWERK_REGISTRY_CREDENTIALS; tell the operator"
    if "not found" in words or "unknown" in words or "no such image" in words:
        return ": its registry does not have it any more"
    return ": its registry does not answer"


def _unless(codes: set[int], work: Callable[[], Any]) -> None:
    """Do it; those answers mean that there is nothing to do."""
    try:
        work()
    except APIError as error:
        if error.status_code not in codes:
            raise
