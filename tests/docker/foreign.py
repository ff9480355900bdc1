"""What tests of environments on images and Dockerfiles share: definitions, settings, a folder.

Whatever a build does, it leaves no container, image or volume behind: :func:`nothing_left`.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import images as stand_ins
from docker.errors import ImageNotFound
from engine import client
from environments import builder, failing

from stellwerk.environment_spec import EnvironmentDefinition
from stellwerk.errors import NotFoundError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_environment_build.image_engine import LABEL, NAME, ImageSettings
from stellwerk_kit.testing import wait_until

FAILURES = (
    (("RUN echo why && exit 3",), "your-spec", "env.dockerfile_failed", "why"),
    (("COPY nothing /x",), "your-spec", "env.dockerfile_failed", "nothing"),
    (("BOGUS",), "your-spec", "env.dockerfile_failed", "BOGUS"),
    (
        ("RUN python3 -c 'import urllib.request as r; r.urlopen(\"http://example.com\")'",),
        "your-spec", "env.dockerfile_network", "STELLWERK_BUILD_NETWORK",
    ),
    (
        ("ADD https://example.org/x /x",),
        "your-spec", "env.dockerfile_network", "line 3 has ADD fetch",
    ),
    (
        ("COPY --from=busybox:1 /bin/sh /x",),
        "your-spec", "env.dockerfile_network", "line 3 has COPY --from=busybox:1",
    ),
    (("RUN dd if=/dev/zero of=/dev/shm/x bs=1M",), "disk-full", "env.disk_full", "write less"),
    (("RUN sh -c 'kill -9 $$'",), "killed", "env.build_killed", "killed from outside"),
    (("RUN rm /usr/bin/python3",), "your-spec", "env.image_python", "no python3 on its PATH"),
)  # fmt: skip
"""Steps behind one other, by whatever they are built: reason, code and words of the failure."""
_BUILDS = """
import asyncio, sys
from environments import build, builder
from foreign import dockerfile, settings
from pathlib import Path
async def main():
    await build(await builder(Path(sys.argv[1]), settings()), dockerfile(*sys.argv[2:]))
asyncio.run(main())
"""


class Folder:
    """An object store with one snapshot in it."""

    def __init__(self, files: dict[str, str]) -> None:
        self.blobs = {hashlib.sha256(text.encode()).hexdigest(): text for text in files.values()}
        entries = [
            ManifestEntry(
                path=path, size=len(text), sha256=hashlib.sha256(text.encode()).hexdigest()
            )
            for path, text in files.items()
        ]
        self.manifest = Manifest(entries=tuple(entries))

    async def get_manifest(self, digest: str) -> Manifest:
        if digest != self.manifest.digest():
            raise NotFoundError("no such blob")
        return self.manifest

    async def fetch(self, digest: str, path: Path, size: int) -> None:
        path.write_text(self.blobs[digest])


def settings(**changes: Any) -> ImageSettings:
    """Those of a builder on the tests' base image."""
    return replace(ImageSettings(stand_ins.base()), **changes)


def on(base: str, *steps: str) -> str:
    """A Dockerfile."""
    return "\n".join([f"FROM {base}", *steps]) + "\n"


def dockerfile(*steps: str, **fields: Any) -> EnvironmentDefinition:
    """An environment of such steps on the tests' base image, as it is."""
    return EnvironmentDefinition(
        dockerfile=on(stand_ins.base(), *steps), **{"user_managed": True, **fields}
    )


async def fails(
    folder: Path, first: str, steps: Iterable[str], reason: str, code: str, words: str
) -> None:
    """A Dockerfile of such steps, ``first`` before them, is not built, and this is told."""
    found = await failing(await builder(folder, settings()), dockerfile(first, *steps))
    assert (found.reason, found.code) == (reason, code), found.message
    assert words in found.message


async def kill_builder(folder: Path, *steps: str, when: Callable[[], bool]) -> None:
    """Build such steps in another process, and kill that."""
    places = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", _BUILDS, str(folder), *steps],
        env={**os.environ, "PYTHONPATH": ":".join(places)},
    )
    try:
        await wait_until(when, 60)
    finally:
        process.kill()
        process.wait()


@contextmanager
def empty_folder() -> Iterator[Path]:
    """A folder with a short name that every user may enter."""
    path = Path(tempfile.mkdtemp(prefix="sw-env-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


@contextmanager
def nothing_left(*registries: str) -> Iterator[None]:
    """Nothing of a build is there that was not before; environments that were made are taken away.

    Other tests may use the engine at the same time: what is surely theirs does not count.
    """
    stand_ins.base()
    before = _state()
    yield
    for name in (
        "stellwerk/environment",
        *(f"{each}/stellwerk/environment" for each in registries),
    ):
        for image in client().images.list(name=name):
            for reference in (*image.tags, *image.attrs["RepoDigests"]):
                if reference.startswith(name):
                    with suppress(ImageNotFound):
                        client().images.remove(reference)
    left = _state() - before
    assert left == set(), left


def _state() -> set[str]:
    """What builds make: by its name or label, and what has no name, as all that is cut off."""
    engine = client().api
    containers = [*engine.containers(all=True, filters={"name": f"^/{NAME}"})]
    containers += engine.containers(all=True, filters={"label": LABEL})
    images = [*engine.images(filters={"dangling": True})]
    images += engine.images(all=True, filters={"label": LABEL})
    volumes = [each["Name"] for each in engine.volumes()["Volumes"] or ()]
    nameless = {name for name in volumes if re.fullmatch("[0-9a-f]{64}", name)}
    return {each["Id"] for each in [*containers, *images]} | nameless
