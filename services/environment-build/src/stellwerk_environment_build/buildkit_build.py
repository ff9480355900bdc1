"""Builds a Dockerfile with the BuildKit within the engine, over the engine's own API.

The context goes with the request, as the ``docker`` command sent it before it had sessions: so
BuildKit has nobody to ask for a login, a secret or a file, and every image it needs is pulled
before. A build leaves nothing but its image and what BuildKit keeps to be faster next time.
"""

import base64
import json
import tarfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import requests
from docker.errors import DockerException

from stellwerk.dockerfile_buildkit import Need, without_directives
from stellwerk.ids import new_id
from stellwerk_environment_build.build_context import IGNORE_FILE, ignored, sent
from stellwerk_environment_build.buildkit_trace import Narration
from stellwerk_environment_build.engine_watch import watched
from stellwerk_environment_build.failures import BuildFailedError, Failure
from stellwerk_environment_build.image_engine import (
    LABEL,
    TROUBLE,
    Client,
    ImageSettings,
    Say,
    archive,
    connect,
)
from stellwerk_environment_build.image_failures import of_dockerfile

KEPT_LINES = 25
NETWORKS = {"none": "none", "bridge": "default", "default": "default", "host": "host"}
"""What BuildKit calls the networks of the engine that it can use."""
_FIRST_API = (1, 39)
_RECENT_API = (1, 42)
"""Docker 23: its BuildKit reads here-documents and the flags of later years."""
_CALL_S = 60


@dataclass
class BuildkitBuild:
    """One build; :meth:`stop` ends it from another thread.

    ``mark`` is the value of its label, ``dockerfile`` the path in ``context`` that ``text`` is of.
    """

    mark: str
    text: str
    context: Path
    dockerfile: str
    settings: ImageSettings
    anew: bool = False
    _id: str = field(default_factory=new_id)
    _ended: threading.Event = field(default_factory=threading.Event)
    _why: Failure | None = None

    def run(self, client: Client, say: Say) -> str:
        """The image's id. Raises BuildFailedError."""
        place = self.context / self.dockerfile
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(without_directives(self.text))
        with watched(client, self.mark, self.settings, self._end):
            return self._build(client, say)

    def stop(self) -> None:
        """End the build; its steps are killed."""
        self._end(None)

    def _end(self, why: Failure | None) -> None:
        self._why = self._why or why
        self._ended.set()
        self._cancel()

    def _cancel(self) -> None:
        with suppress(*TROUBLE), connect() as client:
            address = f"{_address(client)}/cancel"
            client.api.post(address, params={"id": self._id}, timeout=_CALL_S).close()

    def _build(self, client: Client, say: Say) -> str:
        last: deque[str] = deque(maxlen=KEPT_LINES)
        narration, found = Narration(), ""
        for event in self._events(client):
            if self._ended.is_set():
                self._cancel()  # again: when it was told so, it may not have known the build yet
                continue
            if error := event.get("error"):
                last.extend(narration.end())
                words = "\n".join([*last, str(error)])
                network = self.settings.network != "none"
                raise BuildFailedError(of_dockerfile(words, network=network))
            if event.get("id") == "moby.image.id":
                found = event["aux"]["ID"]
            if event.get("id") == "moby.buildkit.trace":
                for line in _lines(narration, event["aux"]):
                    last.append(line)
                    say(f"      {line}")
        if self._why:
            raise BuildFailedError(self._why)
        if self._ended.is_set():
            raise DockerException("the build was ended")
        if not found:
            raise requests.ConnectionError("the engine fell silent in the middle of the build")
        return found

    def _events(self, client: Client) -> Iterator[dict[str, Any]]:
        asked = {
            "version": "2",
            "buildid": self._id,
            "dockerfile": self.dockerfile,
            "nocache": str(self.anew).lower(),
            "networkmode": NETWORKS[self.settings.network],
            "labels": json.dumps({LABEL: self.mark}),
            "buildargs": json.dumps(
                {
                    **self.settings.build_arguments,
                    # Caches that steps mount are this environment's: no other one writes into them.
                    "BUILDKIT_CACHE_MOUNT_NS": self.mark,
                }
            ),
        }
        files = self._files()
        if self._ended.is_set():
            return
        with client.api.post(
            _address(client),
            params=asked,
            data=files,
            headers={"Content-Type": "application/x-tar"},
            stream=True,
            timeout=None,
        ) as answer:
            if not answer.ok:
                raise DockerException(f"the engine refuses to build: {answer.text[:300]}")
            for line in answer.iter_lines():
                if line:
                    yield json.loads(line)

    def _files(self) -> Iterator[bytes]:
        """The context without what it ignores.

        An ignore file beside the Dockerfile comes before the common one. BuildKit knows an archive
        by its first kilobyte: a short name in the old form fits into it.
        """
        patterns = ignored(self.context, f"{self.dockerfile}{IGNORE_FILE}", IGNORE_FILE)
        entries = (
            (self.context / path, path) for path in sent(self.context, self.dockerfile, patterns)
        )
        return archive(chain([(self.context, ".")], entries), form=tarfile.GNU_FORMAT)


def lacking(client: Client, settings: ImageSettings, needed: list[Need]) -> str | None:
    """Why the engine's BuildKit cannot build what needs it; None if it can."""
    if not settings.buildkit:
        return "the operator has switched that off (STELLWERK_BUILD_BUILDKIT)"
    about = client.version()
    version = tuple(int(part) for part in about["ApiVersion"].split("."))
    parts = {each["Name"] for each in about.get("Components") or ()}
    if version < _FIRST_API or about.get("Os") != "linux" or "Engine" not in parts:
        return f"the engine here ({about.get('Version')}) has none"
    if version < _RECENT_API and any(each.recent for each in needed):
        return f"that of the engine here ({about.get('Version')}) is older: Docker 23 or newer does"
    if settings.network not in NETWORKS:
        return f"it has no network {settings.network!r}, which STELLWERK_BUILD_NETWORK names"
    return None


def _address(client: Client) -> str:
    return f"{client.api.base_url}/v{client.api.api_version}/build"


def _lines(narration: Narration, record: str) -> Iterator[str]:
    """The lines of a record; of one in another form than today's there are none."""
    with suppress(ValueError):
        yield from narration.tell(base64.b64decode(record))
