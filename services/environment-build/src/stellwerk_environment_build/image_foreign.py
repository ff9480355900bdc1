"""Images on what a definition names: an image or a Dockerfile, as it is or with packages on it.

Packages come from the builder as files; the image's own Python makes the environment around them
and compiles them, in a container without network. No code of the image ever runs anywhere else.
"""

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docker.errors import APIError

from stellwerk.environment_container import DOCKERFILE, Container
from stellwerk.events.image import IMAGE_ENVIRONMENT
from stellwerk.sizes import size_text
from stellwerk_environment_build.build_log import BuildLog
from stellwerk_environment_build.dockerfile_build import DockerfileBuild
from stellwerk_environment_build.failures import BuildFailedError
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
from stellwerk_environment_build.image_facts import Facts, ended, facts_of
from stellwerk_environment_build.image_failures import Step, no_python, of_image
from stellwerk_environment_build.image_layers import all_paths, refuse_removing
from stellwerk_environment_build.images import in_thread

_LAY = f"""\
import compileall, subprocess, sys, venv
venv.EnvBuilder(symlinks=True, with_pip=False).create({IMAGE_ENVIRONMENT!r})
compileall.compile_dir({IMAGE_ENVIRONMENT!r} + "/lib", quiet=2, workers=0)
python, check = {IMAGE_ENVIRONMENT!r} + "/bin/python", "sys.exit(sys.prefix == sys.base_prefix)"
sys.exit(subprocess.call([python, "-I", "-c", "import sys; " + check]))
"""


@dataclass(frozen=True, slots=True)
class Standing:
    """What an environment stands on, here in the engine. ``reference``: how others find it."""

    image_id: str
    reference: str | None
    facts: Facts
    bytes: int


class ForeignMaker:
    """Makes images of definitions that name what they stand on."""

    def __init__(self, settings: ImageSettings) -> None:
        self.settings = settings

    async def stand(
        self,
        env_id: str,
        asked: Container,
        interpreter: str,
        text: str | None,
        context: Path,
        log: BuildLog,
        *,
        anew: bool = False,
    ) -> Standing:
        """Pull or build what it stands on, and look into it. Raises BuildFailedError.

        ``text`` is the Dockerfile's, None for an image; ``context`` the folder it may copy from.
        """
        name = f"{NAME}{self.settings.mark(env_id)}"
        place = asked.context.dockerfile if asked.context else DOCKERFILE
        build = text and DockerfileBuild(env_id, text, context, self.settings, anew, place)

        def work(say: Say) -> Standing:
            step: Step = "engine"
            try:
                with connect() as client:
                    step = "make"
                    if build:
                        say(f"[1/4] Building the {asked.field.replace('_', ' ')}")
                        image = build.run(client, say)
                    else:
                        say(f"[1/4] Getting image {asked.image}")
                        image = need(client, str(asked.image), self.settings, anew=anew)
                    size = size_text(image.attrs["Size"])
                    facts = facts_of(client, image, interpreter, name)
                    say(f"      image {_short(image)}, {size}, Python {facts.python}")
                    for variable in facts.not_taken:
                        say(f"      Warning: {not_taken(variable)}")
                    size_bytes = int(image.attrs["Size"])
                    return Standing(str(image.id), _given(asked), facts, size_bytes)
            except TROUBLE as error:
                raise failed(step, error) from error

        def give_up() -> None:
            if build:
                build.stop()
            forget(name)

        return await in_thread(work, log, self.settings.limit_s, give_up)

    async def forget(self, env_id: str) -> None:
        """Remove what was built for an environment that is not to be."""

        def work() -> None:
            with suppress(*TROUBLE), connect() as client:
                clear(client, self.settings.mark(env_id))

        await asyncio.to_thread(work)

    async def as_it_is(self, env_id: str, standing: Standing, log: BuildLog) -> str:
        """Its reference: the digest it was named by, or what it is kept as."""
        if standing.reference is not None:
            return standing.reference

        mark = self.settings.mark(env_id)

        def work(say: Say) -> str:
            try:
                with connect() as client:
                    image = client.images.get(standing.image_id)
                    return keep(client, image, mark, self.settings, say)
            except TROUBLE as error:
                raise failed("push", error) from error

        return await in_thread(work, log, self.settings.limit_s, lambda: None)

    async def lay(self, env_id: str, standing: Standing, folder: Path, log: BuildLog) -> str:
        """Lay the packages in ``folder`` on it; the image's reference. Raises BuildFailedError."""
        mark = self.settings.mark(env_id)
        name = f"{NAME}{mark}"

        def work(say: Say) -> str:
            step: Step = "engine"
            try:
                with connect() as client:
                    step = "make"
                    image = self._lay(client, name, standing, folder)
                    say(f"      image {_short(image)}, {size_text(image.attrs['Size'])}")
                    step = "push"
                    return keep(client, image, mark, self.settings, say)
            except TROUBLE as error:
                raise failed(step, error) from error

        return await in_thread(work, log, self.settings.limit_s, lambda: forget(name))

    def _lay(self, client: Client, name: str, standing: Standing, folder: Path) -> Any:
        if not standing.facts.has_venv:
            raise BuildFailedError(no_python("has a python3 without its module venv"))
        paths = all_paths(folder)
        refuse_removing(paths)
        base = client.images.get(standing.image_id)
        container = client.containers.create(
            standing.image_id, **started_with(base, ["python3", "-I", "-S", "-c", _LAY]),
            name=name, user="0",
            network_mode="none", use_config_proxy=False, cap_drop=["ALL"],
            log_config=SILENT, pids_limit=PROCESSES, mem_limit=self.settings.memory_bytes,
            environment={"LD_PRELOAD": ""},
        )  # fmt: skip
        try:
            inside = ((folder / path, f"{IMAGE_ENVIRONMENT}/{path}") for path in paths)
            container.put_archive("/", archive(inside))
            container.start()
            status = ended(container, self.settings.limit_s)
            if status == 137:
                raise BuildFailedError(of_image("killed"))
            if status != 0:
                raise BuildFailedError(no_python("has a python3 that makes no environment"))
            return container.commit(changes=environment_first(base, standing.facts.path))
        except APIError as error:
            raise BuildFailedError(of_image("make", str(error))) from error
        finally:
            remove(container)


def not_taken(variable: str) -> str:
    """What to say of a variable that an image sets and a run does not get."""
    return f"the image sets {variable}, which runs do not take over: it is the platform's"


def _given(asked: Container) -> str | None:
    return asked.image if asked.image is not None and "@" in asked.image else None


def _short(image: Any) -> str:
    return str(image.short_id).removeprefix("sha256:")
