"""Builds a Dockerfile with the engine's own builder, bounded in time, memory, bytes and network.

Every stage is labelled from its first step on, so that whatever a build leaves when it is cut off
is found again by the label and removed, and nothing of another builder is. Nothing of this machine
is passed but, with a network, proxies without their users and passwords.
"""

import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, BuildError, DockerException, ImageNotFound

from stellwerk.dockerfile import OURS, bases, copying, fetching, labelled
from stellwerk.environment_container import by_digest
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import (
    LABEL,
    TROUBLE,
    Client,
    ImageSettings,
    Say,
    clear,
    connect,
    left,
    need,
)
from stellwerk_environment_build.image_failures import (
    copies,
    fetches,
    of_dockerfile,
    too_large,
    unwatched,
)

WATCH_S = 2.0
KEPT_LINES = 25
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SUCCESS = re.compile(r"^Successfully built ([0-9a-f]+)$")


@dataclass
class DockerfileBuild:
    """One build; :meth:`stop` ends it from another thread.

    ``context`` is a folder with what the steps may copy; ``text`` the Dockerfile.
    """

    env_id: str
    text: str
    context: Path
    settings: ImageSettings
    anew: bool = False
    _stopped: threading.Event = field(default_factory=threading.Event)
    _too_large: threading.Event = field(default_factory=threading.Event)

    @property
    def _mark(self) -> str:
        return self.settings.mark(self.env_id)

    def run(self, client: Client, say: Say) -> Any:
        """The image, without a name. Raises BuildFailedError; nothing is left then."""
        if self.settings.network == "none" and (line := fetching(self.text)) is not None:
            raise BuildFailedError(fetches(line.line, line.raw))
        if self.settings.network == "none":
            for line, image in copying(self.text):
                if not (by_digest(image) and _is_here(client, image)):
                    raise BuildFailedError(copies(line.line, image))
        for image in bases(self.text):
            refuse_unwatched(image, need(client, image, self.settings, anew=self.anew))
        try:
            with self._watched():
                image = client.images.get(self._build(client, say))
        except BaseException:
            with suppress(*TROUBLE):
                clear(client, self._mark)
            raise
        if image.attrs["Size"] > self.settings.max_bytes:
            clear(client, self._mark)
            raise BuildFailedError(too_large(self.settings.max_bytes))
        self._clear_stages(client, image)
        return image

    def _clear_stages(self, client: Client, image: Any) -> None:
        """Remove the images of earlier stages: what was wanted of them is copied."""
        mine = {"dangling": True, "label": f"{LABEL}={self._mark}"}
        for each in client.images.list(filters=mine):
            if each.id != image.id:
                with suppress(APIError):
                    client.images.remove(each.id)

    def stop(self) -> None:
        """End the build; its steps are killed."""
        self._stopped.set()
        with suppress(*TROUBLE), connect() as client:
            self._kill(client)

    def _kill(self, client: Client) -> None:
        for container in left(client, self._mark):
            with suppress(APIError):
                container.kill()

    def _build(self, client: Client, say: Say) -> str:
        dockerfile = self.context.with_name("Dockerfile.labelled")
        dockerfile.write_text(labelled(self.text, (LABEL, self._mark)))
        last: deque[str] = deque(maxlen=KEPT_LINES)
        found = ""
        try:
            stream = client.api.build(
                path=str(self.context),
                dockerfile=str(dockerfile),
                rm=True,
                forcerm=True,
                nocache=self.anew,
                network_mode=self.settings.network,
                buildargs=self.settings.build_arguments,
                use_config_proxy=False,  # those of a configuration file may hold passwords
                container_limits={
                    "memory": self.settings.memory_bytes,
                    "memswap": self.settings.memory_bytes,
                },
                decode=True,
            )
            for line in _lines(stream):
                if self._stopped.is_set():
                    continue  # until the engine has seen that its step was killed
                if match := _SUCCESS.match(line):
                    found = match[1]
                last.append(line)
                if LABEL not in line:
                    say(f"      {line}")
        except BuildError as error:
            if self._too_large.is_set():
                raise BuildFailedError(too_large(self.settings.max_bytes)) from error
            words = "\n".join([*last, str(error)])
            network = self.settings.network != "none"
            raise BuildFailedError(of_dockerfile(words, network=network)) from error
        except APIError as error:
            raise BuildFailedError(of_dockerfile(str(error.explanation), network=True)) from error
        if self._stopped.is_set():
            raise DockerException("the build was ended")
        if not found:
            raise requests.ConnectionError("the engine fell silent in the middle of the build")
        return found

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Kill a step that writes more than it may, before the disk is full."""
        over = threading.Event()

        def watch() -> None:
            with suppress(*TROUBLE), connect() as client:
                while not over.wait(WATCH_S):
                    if self._stopped.is_set():
                        self._kill(client)
                    filters = {"label": f"{LABEL}={self._mark}"}
                    for each in client.api.containers(size=True, filters=filters):
                        if each.get("SizeRw", 0) > self.settings.max_bytes:
                            self._too_large.set()
                            with suppress(APIError):
                                client.api.kill(each["Id"])

        thread = threading.Thread(target=watch, name="build-watch", daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def refuse_unwatched(name: str, image: Any) -> None:
    """Raises BuildFailedError for a base whose own steps or labels come before the build's."""
    config = image.attrs.get("Config") or {}
    if config.get("OnBuild"):
        raise BuildFailedError(unwatched(name, "has ONBUILD steps"))
    if any(key.startswith(OURS) and key != LABEL for key in config.get("Labels") or ()):
        raise BuildFailedError(unwatched(name, f"has labels that begin with {OURS!r}"))


def _is_here(client: Client, image: str) -> bool:
    try:
        client.images.get(image)
    except ImageNotFound:
        return False
    return True


def _lines(stream: Iterator[dict[str, Any]]) -> Iterator[str]:
    """What the builder says, line by line; raises BuildError where it gives up."""
    pending = ""
    for event in stream:
        if "error" in event:
            raise BuildError(event["error"], ())
        text = event.get("stream") or (f"{event['status']}\n" if _worth_telling(event) else "")
        pending += _ANSI.sub("", text)
        *whole, pending = pending.split("\n")
        for line in whole:
            if line.rstrip():
                yield line.rstrip()
    if pending.strip():
        yield pending.strip()


def _worth_telling(event: dict[str, Any]) -> bool:
    return "status" in event and not event.get("progressDetail") and "id" not in event
