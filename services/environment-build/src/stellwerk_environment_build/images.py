"""Makes an image of an environment: one layer on the base image, or on a smaller environment's.

The environment was locked, installed and byte-compiled in the cache; here it is copied, so that a
process and a container run exactly the same files. Nothing of this machine (index, CA, proxy) is
involved, and no network. With a registry the image is pushed, and known by its digest.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from docker.errors import APIError, ImageNotFound, NotFound

from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.build_log import BuildLog, human_bytes
from stellwerk_environment_build.cache import EnvironmentCache, Ready
from stellwerk_environment_build.conda_prefix import moved
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_discard import discard
from stellwerk_environment_build.image_engine import (
    NAME,
    PROCESSES,
    SILENT,
    TROUBLE,
    Client,
    ImageSettings,
    Say,
    archive,
    clear,
    connect,
    environment_first,
    failed,
    forget,
    keep,
    need,
    remove,
    started_with,
)
from stellwerk_environment_build.image_failures import Step, of_image, took_too_long
from stellwerk_environment_build.image_layers import all_paths, changed, with_folders

MOST_LAYERS = 60
"""The engine allows 127."""
MOST_PARENTS = 5
"""So many candidates are compared, the largest first."""
END_S = 30.0
"""So long a thread that is to end is waited for."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Below:
    """What an image is laid on, and which paths of ``folder`` are new there."""

    image: str
    folder: Path
    paths: list[str]
    env_id: str | None = None


class ImageMaker:
    """Makes images with the engine that the ``docker`` command would use."""

    def __init__(self, settings: ImageSettings) -> None:
        self.settings, self.base = settings, settings.base

    async def make(self, ready: Ready, cache: EnvironmentCache, log: BuildLog) -> str:
        """The image's reference: by digest if pushed, else its id. Raises BuildFailedError."""
        name = f"{NAME}{ready.env_id}"
        return await in_thread(
            lambda say: self._make(name, ready, cache, say),
            log,
            self.settings.limit_s,
            lambda: forget(name),
        )

    async def discard(self, ready: Ready, *, from_registry: bool, shared: bool) -> None:
        """Take the image of an environment away that leaves the cache; only its name if shared."""
        await asyncio.to_thread(
            discard, ready, self.settings, from_registry=from_registry, shared=shared
        )

    async def sweep(self) -> None:
        """Remove what builders that died left; without an engine there is nothing."""

        def remove_all() -> None:
            with suppress(*TROUBLE), connect() as client:
                for container in client.containers.list(
                    all=True, filters={"name": f"^/{NAME}"}, ignore_removed=True
                ):
                    remove(container)
                clear(client)

        await asyncio.to_thread(remove_all)

    def _make(self, name: str, ready: Ready, cache: EnvironmentCache, say: Say) -> str:
        step: Step = "engine"
        try:
            with connect() as client:
                below = self._parent(client, ready, cache)
                said = f"environment {below.env_id[:12]}" if below.env_id else self.base
                say(
                    f"[5/5] Making an image on {said}: {len(below.paths)} files and folders are new"
                )
                step = "make"
                image = self._on_parent(client, name, ready, below) if below.env_id else None
                if image is None:
                    step = "base"
                    self._need(client)
                    step = "make"
                    below = self._on_base(ready, cache) if below.env_id else below
                    image = self._commit(client, name, ready, below)
                size = human_bytes(float(image.attrs["Size"]))
                say(f"      image {image.short_id.removeprefix('sha256:')}, {size}")
                step = "push"
                return keep(client, image, ready.env_id, self.settings, say)
        except TROUBLE as error:
            raise failed(step, error) from error

    def _need(self, client: Client) -> None:
        try:
            need(client, self.base, self.settings)
        except BuildFailedError as error:  # the operator's choice, not the user's
            raise BuildFailedError(of_image("base")) from error

    def _on_parent(self, client: Client, name: str, ready: Ready, below: "_Below") -> Any:
        """The image, None if the parent's was pruned meanwhile."""
        with suppress(ImageNotFound):
            return self._commit(client, name, ready, below)
        return None

    def _parent(self, client: Client, ready: Ready, cache: EnvironmentCache) -> "_Below":
        """The largest environment that this one only adds to, else the base."""
        folder, wanted = cache.path(ready.env_id), set(ready.packages)
        smaller = [
            each
            for each in cache.all_ready()
            if each.image is not None
            and (each.image_base, each.python) == (self.base, ready.python)
            and each.env_id != ready.env_id
            and set(each.packages) <= wanted
        ]
        for each in sorted(smaller, key=lambda one: one.bytes, reverse=True)[:MOST_PARENTS]:
            with suppress(ImageNotFound, FileNotFoundError):  # it is being pruned
                layers = client.images.get(each.image).attrs["RootFS"]["Layers"]
                paths = changed(folder, cache.path(each.env_id))
                if paths is not None and len(layers) < MOST_LAYERS:
                    return _Below(str(each.image), folder, with_folders(paths), each.env_id)
        return self._on_base(ready, cache)

    def _on_base(self, ready: Ready, cache: EnvironmentCache) -> "_Below":
        folder = cache.path(ready.env_id)
        return _Below(self.base, folder, all_paths(folder))

    def _commit(self, client: Client, name: str, ready: Ready, below: "_Below") -> Any:
        with suppress(NotFound):
            remove(client.containers.get(name))
        # Whether the base has the interpreter at its place is tried before anything is kept.
        check = [f"{IMAGE_ENVIRONMENT}/bin/python", "-I", "-B", "-c", _CHECK, str(ready.python)]
        base = client.images.get(below.image)
        container = client.containers.create(
            below.image, **started_with(base, check), name=name, user="0",
            network_mode="none", use_config_proxy=False, cap_drop=["ALL"],
            log_config=SILENT, pids_limit=PROCESSES, environment={"LD_PRELOAD": ""},
        )  # fmt: skip
        try:
            inside = ((below.folder / path, f"{IMAGE_ENVIRONMENT}/{path}") for path in below.paths)
            there = moved(below.folder, IMAGE_ENVIRONMENT)
            container.put_archive("/", archive(inside, there))
            try:
                container.start()
                status = container.wait()["StatusCode"]
            except APIError as error:
                raise BuildFailedError(of_image("python")) from error
            if status == 137:
                raise BuildFailedError(of_image("killed"))
            if status != 0:
                raise BuildFailedError(of_image("python"))
            return container.commit(changes=environment_first(base, _SYSTEM_PATH))
        finally:
            remove(container)


async def in_thread(
    work: Callable[[Say], T], log: BuildLog, limit_s: float, give_up: Callable[[], None]
) -> T:
    """Run ``work`` on a thread, its lines into ``log``; ``give_up`` makes it end early.

    Raises BuildFailedError after ``limit_s``.
    """
    loop = asyncio.get_running_loop()

    def say(text: str) -> None:
        asyncio.run_coroutine_threadsafe(log.line(text), loop).result()

    thread = loop.run_in_executor(None, work, say)
    try:
        async with asyncio.timeout(limit_s):
            return await asyncio.shield(thread)
    except BaseException as error:
        # What goes on in the thread ends when its container does, and clears up after itself.
        await asyncio.to_thread(give_up)
        done, _ = await asyncio.wait({thread}, timeout=END_S)
        for each in done:
            each.exception()  # taken: the one above is the one to tell
        if isinstance(error, TimeoutError):
            raise BuildFailedError(took_too_long(limit_s)) from error
        raise


_SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHECK = (
    "import sys; sys.exit('.'.join(map(str, sys.version_info[:3])) != sys.argv[1]"
    f" or sys.prefix != {IMAGE_ENVIRONMENT!r})"
)
