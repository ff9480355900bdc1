"""Makes an image of an environment: a layer for each package on the base image.

The environment was locked, installed and byte-compiled in the cache; here its files are packed, so
that a process and a container run exactly the same files. Nothing of this machine (index, CA,
proxy) is involved, and no network but the one to the registry. A package that an image had before
is not packed again. With a registry the image is there, and known by its digest; else it is in the
engine.
"""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from docker.errors import APIError, ImageNotFound, NotFound

from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.build_log import BuildLog
from stellwerk_environment_build.cache import EnvironmentCache, Ready
from stellwerk_environment_build.conda_prefix import moved
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_delivery import BASE_TAG, Delivery
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
    failed,
    forget,
    need_base,
    remove,
)
from stellwerk_environment_build.image_failures import Step, of_image, took_too_long
from stellwerk_environment_build.image_layers import Layer, layers_of, outside_packages
from stellwerk_environment_build.inspection import Lock
from stellwerk_environment_build.known_layers import KnownLayers
from stellwerk_environment_build.layer_archive import LayerArchive

END_S = 30.0
"""So long a thread that is to end is waited for."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Made:
    """``reference``: by digest if pushed, else its id. ``layers``: digests of those on the base."""

    reference: str
    layers: tuple[str, ...]


class ImageMaker:
    """Makes images with the engine that the ``docker`` command would use."""

    def __init__(self, settings: ImageSettings) -> None:
        self.settings, self.base = settings, settings.base
        self._tried: set[tuple[str, ...]] = set()

    async def make(
        self, ready: Ready, cache: EnvironmentCache, log: BuildLog, *, anew: bool = False
    ) -> Made:
        """The image of an environment of the cache. Raises BuildFailedError.

        ``anew``: what earlier images had is read again.
        """
        name, stop = f"{NAME}{self.settings.mark(ready.env_id)}", threading.Event()

        def give_up() -> None:
            stop.set()
            forget(name)

        return await in_thread(
            lambda say: self._make(name, ready, cache, say, stop, anew=anew),
            log,
            self.settings.limit_s,
            give_up,
        )

    async def discard(self, ready: Ready, *, from_registry: bool, shared: bool) -> None:
        """Take the image of an environment away that leaves the cache; only its name if shared."""
        await asyncio.to_thread(
            discard, ready, self.settings, from_registry=from_registry, shared=shared
        )

    async def sweep(self) -> None:
        """Remove what this builder left when it died; without an engine there is nothing.

        Names of bases go whoever gave them: who is about to push one gives it again.
        """
        mark = self.settings.mark()

        def remove_all() -> None:
            with suppress(*TROUBLE), connect() as client:
                for container in client.containers.list(
                    all=True, filters={"name": f"^/{NAME}{mark}"}, ignore_removed=True
                ):
                    remove(container)
                for image in client.images.list(name=self.settings.repository):
                    for tag in (each for each in image.tags if f":{BASE_TAG}" in each):
                        with suppress(ImageNotFound):  # its builder lives, and was faster
                            client.images.remove(tag, noprune=True)
                clear(client, mark)

        await asyncio.to_thread(remove_all)

    def _make(
        self,
        name: str,
        ready: Ready,
        cache: EnvironmentCache,
        say: Say,
        stop: threading.Event,
        *,
        anew: bool,
    ) -> Made:
        folder = cache.path(ready.env_id)
        there = moved(folder, IMAGE_ENVIRONMENT)
        known, tag = KnownLayers(cache.layers), self.settings.mark(ready.env_id)

        def packed(layer: Layer) -> LayerArchive:
            return LayerArchive(folder, layer.paths, content=there, times=layer.times, stop=stop)

        step: Step = "engine"
        try:
            with connect() as client:
                step = "base"
                base = need_base(client, self.settings)
                step = "make"
                lock = cache.kept_text(ready.lock_digest) if ready.lock_digest else None
                self._try_python(client, name, base, folder, ready, Lock(lock or ""))
                layers = layers_of(folder, ready.python, there)
                unknown = [each for each in layers if anew or known.get(each.key) is None]
                files = sum(len(each.paths) for each in unknown)
                say(
                    f"[5/5] Making an image on {self.base}: {len(unknown)} of {len(layers)} layers "
                    f"with {files} files are new"
                )
                if anew:
                    known.forget(each.key for each in layers)
                work = Delivery(client, self.settings, base, known, packed, say)
                if self.settings.registry is None:
                    before = self._nearest(client, base, ready, cache)
                    image, blobs = work.to_engine(tag, layers, before)
                else:
                    step = "push"
                    image, blobs = work.to_registry(tag, layers)
                return Made(image, tuple(each.digest for each in blobs))
        except TROUBLE as error:
            raise failed(step, error) from error

    def _nearest(
        self, client: Client, base: Any, ready: Ready, cache: EnvironmentCache
    ) -> tuple[str, ...]:
        """The layers of the image in the engine that has most packages in common."""
        wanted = set(ready.packages)
        others = [
            each
            for each in cache.all_ready()
            if each.image_layers and (each.image_base, each.python) == (self.base, ready.python)
        ]
        below = base.attrs["RootFS"]["Layers"]
        for each in sorted(others, key=lambda one: len(wanted & set(one.packages)), reverse=True):
            with suppress(ImageNotFound):
                image = client.images.get(str(each.image))
                if image.attrs["RootFS"]["Layers"] == [*below, *each.image_layers]:
                    return each.image_layers
        return ()

    def _try_python(
        self, client: Client, name: str, base: Any, folder: Path, ready: Ready, lock: Lock
    ) -> None:
        """Raise BuildFailedError where the base lacks the environment's interpreter at its place.

        One that is a conda package is tried once too: that brings all it needs to start.
        """
        brought = [each.sha256 for each in lock.conda if each.name == "python"]
        python = (folder / "bin" / "python").resolve()
        what = (str(base.id), str(ready.python), *(brought or [str(python)]))
        if what in self._tried:
            return
        with suppress(NotFound):
            remove(client.containers.get(name))
        check = [f"{IMAGE_ENVIRONMENT}/bin/python", "-I", "-B", "-c", _CHECK, str(ready.python)]
        container = client.containers.create(
            base.id, entrypoint=check, name=name, user="0",
            network_mode="none", use_config_proxy=False, cap_drop=["ALL"],
            log_config=SILENT, pids_limit=PROCESSES, environment={"LD_PRELOAD": ""},
        )  # fmt: skip
        try:
            paths = outside_packages(folder)
            inside = ((folder / path, f"{IMAGE_ENVIRONMENT}/{path}") for path in paths)
            container.put_archive("/", archive(inside, moved(folder, IMAGE_ENVIRONMENT)))
            try:
                container.start()
                status = container.wait()["StatusCode"]
            except APIError as error:
                raise BuildFailedError(of_image("python")) from error
            if status == 137:
                raise BuildFailedError(of_image("killed"))
            if status != 0:
                raise BuildFailedError(of_image("python"))
        finally:
            remove(container)
        self._tried.add(what)


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


_CHECK = (
    "import sys; sys.exit('.'.join(map(str, sys.version_info[:3])) != sys.argv[1]"
    f" or sys.prefix != {IMAGE_ENVIRONMENT!r})"
)
