"""Builds a Dockerfile with the engine's classic builder, whose every step is a container.

So each has a limit of memory, is seen to write too much, and can be killed. Every stage is labelled
from its first step on: whatever a build leaves when it is cut off is found again by the label and
removed, and nothing of another builder is.
"""

import re
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from docker.errors import APIError, BuildError, DockerException

from stellwerk.dockerfile import labelled
from stellwerk.ids import new_id
from stellwerk_environment_build.beside import beside
from stellwerk_environment_build.build_context import IGNORE_FILE, ignored, sent
from stellwerk_environment_build.failures import BuildFailedError
from stellwerk_environment_build.image_engine import (
    LABEL,
    TROUBLE,
    Client,
    ImageSettings,
    Say,
    archive,
    connect,
    left,
)
from stellwerk_environment_build.image_failures import of_dockerfile, too_large

WATCH_S = 2.0
KEPT_LINES = 25
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_SUCCESS = re.compile(r"^Successfully built ([0-9a-f]+)$")


@dataclass
class ClassicBuild:
    """One build; :meth:`stop` ends it from another thread. ``mark`` is its label's value."""

    mark: str
    text: str
    context: Path
    settings: ImageSettings
    anew: bool = False
    _name: str = field(default_factory=lambda: f".dockerfile.{new_id()}")
    _stopped: threading.Event = field(default_factory=threading.Event)
    _too_large: threading.Event = field(default_factory=threading.Event)

    def run(self, client: Client, say: Say) -> str:
        """The image's id. Raises BuildFailedError."""
        with beside("build-watch", self._watch):
            return self._build(client, say)

    def stop(self) -> None:
        """End the build; its steps are killed."""
        self._stopped.set()
        with suppress(*TROUBLE), connect() as client:
            self._kill(client)

    def _kill(self, client: Client) -> None:
        for container in left(client, self.mark):
            with suppress(APIError):
                container.kill()

    def _build(self, client: Client, say: Say) -> str:
        last: deque[str] = deque(maxlen=KEPT_LINES)
        found = ""
        try:
            stream = client.api.build(
                fileobj=self._files(),
                custom_context=True,
                dockerfile=self._name,
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

    def _files(self) -> Iterator[bytes]:
        """The context without what it ignores, and the labelled Dockerfile, which steps never see.

        The engine leaves out what the ignore file names, once it has read it.
        """
        patterns = ignored(self.context, IGNORE_FILE)
        paths = sent(self.context, self._name, patterns)
        labelled_file, ignore_file = (
            self.context.with_name(name) for name in ("Dockerfile.labelled", "dockerignore")
        )
        labelled_file.write_text(labelled(self.text, (LABEL, self.mark)))
        ignore_file.write_text("\n".join([*(patterns or [IGNORE_FILE]), self._name]))
        entries = [(self.context / path, path) for path in paths if path != IGNORE_FILE]
        return archive([*entries, (ignore_file, IGNORE_FILE), (labelled_file, self._name)])

    def _watch(self, over: threading.Event) -> None:
        """Kill a step that writes more than it may, before the disk is full."""
        with suppress(*TROUBLE), connect() as client:
            while not over.wait(WATCH_S):
                if self._stopped.is_set():
                    self._kill(client)
                filters = {"label": f"{LABEL}={self.mark}"}
                for each in client.api.containers(size=True, filters=filters):
                    if each.get("SizeRw", 0) > self.settings.max_bytes:
                        self._too_large.set()
                        with suppress(APIError):
                            client.api.kill(each["Id"])


def _lines(stream: Iterator[dict[str, Any]]) -> Iterator[str]:
    """What the builder says, line by line; raises BuildError where it has given up.

    The answer is read to its end all the same: what is left of it would stay open.
    """
    pending, error = "", None
    for event in stream:
        error = event.get("error", error)
        text = event.get("stream") or (f"{event['status']}\n" if _worth_telling(event) else "")
        pending += _ANSI.sub("", text)
        *whole, pending = pending.split("\n")
        for line in whole:
            if line.rstrip():
                yield line.rstrip()
    if pending.strip():
        yield pending.strip()
    if error is not None:
        raise BuildError(error, ())


def _worth_telling(event: dict[str, Any]) -> bool:
    return "status" in event and not event.get("progressDetail") and "id" not in event
