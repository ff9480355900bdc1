"""Makes an image of an environment: one layer on the base image, or on a smaller environment's.

The environment was locked, installed and byte-compiled in the cache; here it is copied, so that a
process and a container run exactly the same files. Nothing of this machine (index, CA, proxy) is
involved, and no network. With a registry the image is pushed, and known by its digest.
"""

import asyncio
import json
import os
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk_environment_build.build_log import BuildLog, human_bytes
from stellwerk_environment_build.cache import EnvironmentCache, Ready
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_failures import Step, of_image, took_too_long
from stellwerk_environment_build.image_layers import changed, with_folders

NAME = "stellwerk-build-"
CALL_S = 600
CHUNK = 1 << 20
MOST_LAYERS = 60
"""The engine allows 127."""
MOST_PARENTS = 5
"""So many candidates are compared, the largest first."""
PUSH_NEWS_BYTES = 100_000_000
Say = Callable[[str], None]
Client: TypeAlias = docker.DockerClient


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """``base``: what environments are laid on; its Python lies where the builder's does.

    ``registry``: ``host:port`` to push to, None keeps images in this engine. ``login``:
    ``username`` and ``password`` for it.
    """

    base: str
    registry: str | None = None
    login: Mapping[str, str] | None = None
    limit_s: float = 1800.0


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
        self._settings, self.base = settings, settings.base
        host = f"{settings.registry}/" if settings.registry else ""
        self.repository = f"{host}stellwerk/environment"

    async def make(self, ready: Ready, cache: EnvironmentCache, log: BuildLog) -> str:
        """The image's reference: by digest if pushed, else its id. Raises BuildFailedError."""
        loop = asyncio.get_running_loop()

        def say(text: str) -> None:
            asyncio.run_coroutine_threadsafe(log.line(text), loop).result()

        name = f"{NAME}{ready.env_id}"
        try:
            async with asyncio.timeout(self._settings.limit_s):
                return await asyncio.to_thread(self._make, name, ready, cache, say)
        except BaseException as error:
            # What goes on in the thread ends when its container does.
            await asyncio.to_thread(_forget, name)
            if isinstance(error, TimeoutError):
                raise BuildFailedError(took_too_long(self._settings.limit_s)) from error
            raise

    async def sweep(self) -> None:
        """Remove containers of builders that died; without an engine there are none."""

        def remove_all() -> None:
            with suppress(DockerException, requests.RequestException), _engine() as client:
                for container in client.containers.list(all=True, filters={"name": f"^/{NAME}"}):
                    container.remove(force=True)

        await asyncio.to_thread(remove_all)

    def _make(self, name: str, ready: Ready, cache: EnvironmentCache, say: Say) -> str:
        step: Step = "engine"
        try:
            with _engine() as client:
                below = self._parent(client, ready, cache)
                said = f"environment {below.env_id[:12]}" if below.env_id else self.base
                say(
                    f"[5/5] Making an image on {said}: {len(below.paths)} files and folders are new"
                )
                step = "base"
                _need(client, below.image)
                step = "make"
                image = self._commit(client, name, ready, below)
                size = human_bytes(float(image.attrs["Size"]))
                say(f"      image {image.short_id.removeprefix('sha256:')}, {size}")
                if not self._settings.registry:
                    return str(image.id)
                step = "push"
                with _removed_on_failure(client, image.id):
                    return self._push(client, ready.env_id, say)
        except (DockerException, requests.RequestException, OSError) as error:
            raise BuildFailedError(of_image(step, str(error))) from error

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
            with suppress(ImageNotFound):
                layers = client.images.get(each.image).attrs["RootFS"]["Layers"]
                paths = changed(folder, cache.path(each.env_id))
                if paths is not None and len(layers) < MOST_LAYERS:
                    return _Below(str(each.image), folder, with_folders(paths), each.env_id)
        return _Below(self.base, folder, [".", *with_folders(_all(folder))])

    def _commit(self, client: Client, name: str, ready: Ready, below: "_Below") -> Any:
        with suppress(NotFound):
            client.containers.get(name).remove(force=True)
        # Whether the base has the interpreter at its place is tried before anything is kept.
        check = [f"{IMAGE_ENVIRONMENT}/bin/python", "-I", "-B", "-c", _CHECK, str(ready.python)]
        container = client.containers.create(
            below.image, command=check, name=name, user="0",
            network_mode="none", cap_drop=["ALL"], environment={"LD_PRELOAD": ""},
        )  # fmt: skip
        try:
            container.put_archive("/", _archive(below))
            try:
                container.start()
                status = container.wait()["StatusCode"]
            except APIError as error:
                raise BuildFailedError(of_image("python")) from error
            if status == 137:
                raise BuildFailedError(of_image("killed"))
            if status != 0:
                raise BuildFailedError(of_image("python"))
            return self._tagged(client, container, ready.env_id)
        finally:
            with suppress(NotFound):
                container.remove(force=True)

    def _tagged(self, client: Client, container: Any, tag: str) -> Any:
        """The container as an image; one that had the tag before goes, unless it is in use."""
        before = None
        with suppress(ImageNotFound):
            before = client.images.get(f"{self.repository}:{tag}").id
        image = container.commit(self.repository, tag, changes=_changes())
        if before not in {None, image.id}:
            with suppress(APIError):
                client.images.remove(before)
        return image

    def _push(self, client: Client, tag: str, say: Say) -> str:
        login = self._settings.login
        options = {"auth_config": dict(login)} if login else {}
        sent: dict[str, int] = {}
        told = 0
        digest = None
        for event in client.api.push(self.repository, tag, stream=True, decode=True, **options):
            if "error" in event:
                raise DockerException(event["error"])
            digest = event.get("aux", {}).get("Digest", digest)
            if event.get("status") == "Pushing":
                sent[event["id"]] = event.get("progressDetail", {}).get("current", 0)
                if sum(sent.values()) - told >= PUSH_NEWS_BYTES:
                    told = sum(sent.values())
                    say(f"      … pushed {human_bytes(float(told))}")
        if digest is None:
            raise DockerException("the registry gave no digest")
        moved = human_bytes(float(sum(sent.values())))
        say(f"      pushed to {self._settings.registry}: {moved} moved, {digest}")
        return f"{self.repository}@{digest}"


_CHECK = (
    "import sys; sys.exit('.'.join(map(str, sys.version_info[:3])) != sys.argv[1]"
    f" or sys.prefix != {IMAGE_ENVIRONMENT!r})"
)


def _changes() -> list[str]:
    path = f"{IMAGE_ENVIRONMENT}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return [
        f'CMD {json.dumps(["python"])}', f"ENV PATH={path}",
        f"ENV VIRTUAL_ENV={IMAGE_ENVIRONMENT}",
    ]  # fmt: skip


def _engine() -> closing[Client]:
    """A connection for the length of a ``with``."""
    return closing(docker.from_env(timeout=CALL_S))


def _need(client: Client, image: str) -> None:
    try:
        client.images.get(image)
    except ImageNotFound:
        client.images.pull(image)


def _all(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in folder.rglob("*")]


@contextmanager
def _removed_on_failure(client: Client, image: str) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(APIError):
            client.images.remove(image, force=True)
        raise


def _forget(name: str) -> None:
    with suppress(DockerException, requests.RequestException), _engine() as client:
        client.containers.get(name).remove(force=True)


def _archive(below: _Below) -> Iterator[bytes]:
    """The environment as a stream of tar, owned by root, never whole in memory."""
    read, write = os.pipe()

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    def fill() -> None:
        with (
            suppress(BrokenPipeError),
            os.fdopen(write, "wb") as out,
            tarfile.open(fileobj=out, mode="w|") as archive,
        ):
            for path in below.paths:
                inside = f"{IMAGE_ENVIRONMENT.lstrip('/')}/{path}"
                archive.add(below.folder / path, inside, recursive=False, filter=owned)

    threading.Thread(target=fill, name="image-archive", daemon=True).start()
    with os.fdopen(read, "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk
