"""Builds a Dockerfile with a builder of the engine, bounded in time, bytes and network.

The classic builder is taken, since its steps are bounded best, and BuildKit where the file needs or
asks for it. Nothing of this machine is passed but, with a network, proxies without their users and
passwords.
"""

import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound

from stellwerk.dockerfile import OURS, bases, copying, fetching
from stellwerk.dockerfile_buildkit import needs, syntax
from stellwerk.environment_container import DOCKERFILE, by_digest
from stellwerk_environment_build.buildkit_build import BuildkitBuild, lacking
from stellwerk_environment_build.classic_build import ClassicBuild
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import (
    LABEL,
    TROUBLE,
    Client,
    ImageSettings,
    Say,
    clear,
    need,
)
from stellwerk_environment_build.image_failures import (
    copies,
    fetches,
    needs_buildkit,
    too_large,
    unnamed,
    unwatched,
)


@dataclass
class DockerfileBuild:
    """One build; :meth:`stop` ends it from another thread.

    ``context`` is a folder with what the steps may copy; ``text`` the Dockerfile, whose place in
    that folder is ``dockerfile``.
    """

    env_id: str
    text: str
    context: Path
    settings: ImageSettings
    anew: bool = False
    dockerfile: str = DOCKERFILE
    _alone: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False
    _building: ClassicBuild | BuildkitBuild | None = None

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
                    raise BuildFailedError(copies(line.line, line.steps[0], image))
        for image in bases(self.text):
            refuse_unwatched(image, need(client, image, self.settings, anew=self.anew))
        build = self._choose(client, say)
        with self._alone:
            if self._stopped:
                raise DockerException("the build was ended")
            self._building = build
        try:
            image = client.images.get(build.run(client, say))
        except BaseException:
            with suppress(*TROUBLE):
                clear(client, self._mark)
            raise
        if image.attrs["Size"] > self.settings.max_bytes:
            clear(client, self._mark)
            raise BuildFailedError(too_large(self.settings.max_bytes))
        self._clear_stages(client, image)
        return image

    def stop(self) -> None:
        """End the build; its steps are killed."""
        with self._alone:
            self._stopped, building = True, self._building
        if building:
            building.stop()

    def _choose(self, client: Client, say: Say) -> ClassicBuild | BuildkitBuild:
        needed, asked = needs(self.text), syntax(self.text)
        if needed or asked:
            why = lacking(client, self.settings, needed)
            if why is None:
                self._have_all(client)
                if asked:
                    say(f"      syntax {asked}: the engine's own BuildKit reads the file")
                return BuildkitBuild(
                    self._mark, self.text, self.context, self.dockerfile, self.settings, self.anew
                )
            if needed:
                raise BuildFailedError(needs_buildkit(needed[0].line, needed[0].what, why))
            say(f"      syntax {asked}: the classic builder reads the file, since {why}")
        return ClassicBuild(self._mark, self.text, self.context, self.settings, self.anew)

    def _have_all(self, client: Client) -> None:
        """Pull what BuildKit, which has no logins, would pull. Raises BuildFailedError."""
        for line, image in copying(self.text):
            if "$" in image or image.startswith(_ID):
                raise BuildFailedError(unnamed(image, f"in line {line.line}"))
            need(client, image, self.settings, anew=self.anew)
        for image in bases(self.text):
            if image.startswith(_ID):
                raise BuildFailedError(unnamed(image, "after FROM"))

    def _clear_stages(self, client: Client, image: Any) -> None:
        """Remove the images of earlier stages: what was wanted of them is copied."""
        mine = {"dangling": True, "label": f"{LABEL}={self._mark}"}
        for each in client.images.list(filters=mine):
            if each.id != image.id:
                with suppress(APIError):
                    client.images.remove(each.id)


_ID = "sha256:"
"""How an image's id begins, by which BuildKit finds none."""


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
