"""The Docker engine as the makers of images need it: a connection, pulling, pushing, forgetting.

Calls block; they run on threads. Containers of a build have a name; everything is removed with
its anonymous volumes.
"""

import io
import os
import re
import tarfile
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeAlias

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound
from docker.types import LogConfig
from urllib3.exceptions import HTTPError

from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk.sizes import size_text
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_failures import Step, of_image, of_pull
from stellwerk_kit.registry_logins import RegistryLogins

NAME = "stellwerk-build-"
"""How the names of containers begin that make images."""
LABEL = "stellwerk.build"
"""What containers and images of a Dockerfile's build bear, with their mark."""
RUN_LABEL = "stellwerk.run"
"""What containers of runs bear, with that of their image."""
EXECUTOR_LABEL = "stellwerk.executor"
"""What containers of runs bear too: the id of the executor that started them."""
SILENT = LogConfig(type="none")
"""For containers whose words nobody reads; they could fill the disk."""
PROCESSES = 512
"""The most that run in a container while its image's Python makes or tries an environment."""
CALL_S = 600
UNSTARTED_S = 600.0
"""A container that is to run is started within a call of the engine's after it was made."""
CHUNK = 1 << 20
_USER_INFO = re.compile(r"^(\w[\w+.-]*://)?.*@", re.DOTALL)
_PUSHED = re.compile(r": digest: (sha256:[0-9a-f]{64}) ")
_LOOPBACK = ("127.", "localhost")
PUSH_NEWS_BYTES = 100_000_000
Say = Callable[[str], None]
Client: TypeAlias = docker.DockerClient
Entry = tuple[Path, str]
"""A file or folder here, and its place in the image."""
AWAY = (requests.RequestException, OSError, HTTPException, HTTPError)
TROUBLE = (DockerException, *AWAY)


@dataclass(frozen=True, slots=True)
class ImageSettings:
    """``base``: what environments are laid on; its Python lies where the builder's does.

    ``registry``: ``host:port`` to push to, None keeps images in this engine; ``registry_url``:
    where it is for this process, if elsewhere than for the engine. ``logins`` are of registries.
    ``network`` is what the steps of Dockerfiles have, ``proxies`` are build arguments for them if
    that is one. ``max_bytes``: the most that one step may write. ``buildkit``: whether Dockerfiles
    that need it are built with it. ``builder`` tells it from others that use the same engine: what
    bears another one's mark, as its name or label, is not touched.
    """

    base: str
    registry: str | None = None
    logins: RegistryLogins = field(default_factory=RegistryLogins)
    limit_s: float = 1800.0
    network: str = "none"
    proxies: Mapping[str, str] = field(default_factory=dict)
    max_bytes: int = 30_000_000_000
    memory_bytes: int = 4 << 30
    registry_url: str | None = None
    builder: str = "builder"
    buildkit: bool = True

    def mark(self, env_id: str = "") -> str:
        """What a build's things in the engine bear; without an id, how all marks of it begin."""
        return f"{self.builder}-{env_id}"

    @property
    def registry_root(self) -> str:
        """Where this process finds the registry; engines take one on loopback without TLS too."""
        scheme = "http" if str(self.registry).startswith(_LOOPBACK) else "https"
        return (self.registry_url or f"{scheme}://{self.registry}").rstrip("/")

    @property
    def repository(self) -> str:
        """Where images of environments get their name."""
        return (
            f"{self.registry}/stellwerk/environment" if self.registry else "stellwerk/environment"
        )

    @property
    def build_arguments(self) -> dict[str, str]:
        """The proxies for steps with a network. Steps could show them: no user, no password."""
        if self.network == "none":
            return {}
        return {name: _USER_INFO.sub(r"\1", value) for name, value in self.proxies.items()}

    def login(self, image: str) -> dict[str, Any]:
        """The login for the registry of ``image``, as the client library wants it."""
        found = self.logins.of(image)
        return {"auth_config": found} if found else {}


def connect() -> closing[Client]:
    """A connection to the engine that the ``docker`` command would use."""
    return closing(docker.from_env(timeout=CALL_S))


def failed(step: Step, error: Exception) -> BuildFailedError:
    """What a fault of the engine means in ``step``; one that does not answer is away."""
    away = isinstance(error, AWAY) and not isinstance(error, DockerException)
    return BuildFailedError(of_image("engine" if away else step, str(error)))


def need(client: Client, image: str, settings: ImageSettings, *, anew: bool = False) -> Any:
    """The image, pulled if it is not here or is wanted ``anew``. Raises BuildFailedError."""
    if not anew:
        with suppress(ImageNotFound):
            return client.images.get(image)
    try:
        return client.images.pull(image, **settings.login(image))
    except DockerException as error:
        with suppress(ImageNotFound):  # a local one has no registry to be asked
            return client.images.get(image)
        raise BuildFailedError(of_pull(image, str(error))) from error


def need_base(client: Client, settings: ImageSettings) -> Any:
    """The base of images. Raises BuildFailedError; it is the operator's choice, not the user's."""
    try:
        return need(client, settings.base, settings)
    except BuildFailedError as error:
        raise BuildFailedError(of_image("base")) from error


def keep(client: Client, image: Any, tag: str, settings: ImageSettings, say: Say) -> str:
    """Name an image ``tag`` as an environment's, and push it; its reference for nodes."""
    before = None
    with suppress(ImageNotFound):
        before = client.images.get(f"{settings.repository}:{tag}").id
    image.tag(settings.repository, tag)
    if before not in {None, image.id}:
        with suppress(APIError):
            client.images.remove(before)
    if settings.registry is None:
        return str(image.id)
    try:
        return push(client, tag, settings, say)
    except TROUBLE as error:
        with suppress(*TROUBLE):
            client.images.remove(f"{settings.repository}:{tag}")
        raise failed("push", error) from error


def forget(name: str) -> None:
    """Remove the container of that name, if there is one."""
    with suppress(*TROUBLE), connect() as client:
        remove(client.containers.get(name))


def remove(container: Any) -> None:
    """Remove a container and the volumes that nobody named; one that is gone, or going, is fine."""
    try:
        container.remove(force=True, v=True)
    except APIError as error:
        if error.status_code not in {404, 409}:
            raise


def forget_unstarted(client: Client, prefix: str) -> None:
    """Remove containers whose names begin so and whose maker died before it could start them.

    Younger ones than UNSTARTED_S may still be started.
    """
    found = client.api.containers(
        all=True, filters={"name": f"^/{re.escape(prefix)}", "status": "created"}
    )
    if found:
        # The engine's clock: that of this machine may be another.
        now = datetime.fromisoformat(client.info()["SystemTime"]).timestamp()
        for each in found:
            if now - each["Created"] >= UNSTARTED_S:
                remove(client.containers.get(each["Id"]))


def left(client: Client, mark: str) -> list[Any]:
    """Containers of builds whose mark begins so; never those of runs on their images."""
    found = client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True)
    return [each for each in found if each.labels[LABEL].startswith(mark) and is_step(each)]


def is_step(container: Any) -> bool:
    """Whether a container with the label of builds is a step of one, not a run on its image."""
    if RUN_LABEL in container.labels and container.labels.get(EXECUTOR_LABEL):
        return False
    with suppress(NotFound, ImageNotFound):
        return not container.image.tags and not container.image.attrs["RepoDigests"]
    return False


def clear(client: Client, mark: str) -> None:
    """Remove what builds left whose mark begins so: containers, and images without a name."""
    for container in left(client, mark):
        remove(container)
    tried: set[str] = set()
    while found := _nameless(client, mark) - tried:
        tried |= found  # an image below one that went may be without a name only now
        for image in found:
            with suppress(APIError):
                client.images.remove(image)


def _nameless(client: Client, mark: str) -> set[str]:
    found = client.api.images(filters={"dangling": True, "label": LABEL})
    return {each["Id"] for each in found if each["Labels"][LABEL].startswith(mark)}


def started_with(image: Any, command: list[str]) -> dict[str, Any]:
    """How to start a container of ``image`` that is to be committed.

    A commit cannot take an entry point away again, so there is one only in place of another.
    """
    return {"entrypoint": command} if image.attrs["Config"]["Entrypoint"] else {"command": command}


def environment_first(image: Any, path: str) -> list[str]:
    """Changes for the commit: the environment comes first, no entry point is in its way."""
    entry = ['ENTRYPOINT ["/usr/bin/env"]'] if image.attrs["Config"]["Entrypoint"] else []
    return [
        *entry,
        'CMD ["python"]',
        f"ENV PATH={IMAGE_ENVIRONMENT}/bin:{path}",
        f"ENV VIRTUAL_ENV={IMAGE_ENVIRONMENT}",
    ]


def archive(
    entries: Iterable[Entry],
    content: Callable[[Path], bytes | None] | None = None,
    *,
    form: int = tarfile.PAX_FORMAT,
) -> Iterator[bytes]:
    """Files as a stream of tar, owned by root, never whole in memory.

    ``content`` may give other bytes than a file has.
    """
    read, write = os.pipe()

    def owned(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 0
        member.uname = member.gname = "root"
        return member

    def fill() -> None:
        with (
            suppress(BrokenPipeError),
            os.fdopen(write, "wb") as out,
            tarfile.open(fileobj=out, mode="w|", format=form) as tar,
        ):
            for path, inside in entries:
                other = content(path) if content else None
                if other is None:
                    tar.add(path, inside.lstrip("/"), recursive=False, filter=owned)
                    continue
                member = owned(tar.gettarinfo(path, inside.lstrip("/")))
                member.size = len(other)
                tar.addfile(member, io.BytesIO(other))

    threading.Thread(target=fill, name="image-archive", daemon=True).start()
    with os.fdopen(read, "rb") as source:
        while chunk := source.read(CHUNK):
            yield chunk


def push(client: Client, tag: str, settings: ImageSettings, say: Say) -> str:
    """Push what bears ``tag`` in the repository of environments; its reference by digest."""
    sent: dict[str, int] = {}
    told = 0
    digest = error = None
    repository = settings.repository
    for event in client.api.push(
        repository, tag, stream=True, decode=True, **settings.login(repository)
    ):
        error = event.get("error", error)
        digest = event.get("aux", {}).get("Digest", digest)
        if match := _PUSHED.search(event.get("status", "")):  # all that an image store says
            digest = match[1]
        if event.get("status") == "Pushing":
            sent[event["id"]] = event.get("progressDetail", {}).get("current", 0)
            if sum(sent.values()) - told >= PUSH_NEWS_BYTES:
                told = sum(sent.values())
                say(f"      … pushed {size_text(told)}")
    if error is not None:
        raise DockerException(error)
    if digest is None:
        raise DockerException("the registry gave no digest")
    moved = size_text(sum(sent.values()))
    say(f"      pushed to {settings.registry}: {moved} moved, {digest}")
    return f"{repository}@{digest}"
