"""Where an image's layers go: into a registry, or into the engine. Only what is not there moves.

Calls block; they run on threads.
"""

import hashlib
import json
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError, DockerException, ImageNotFound

from stellwerk.sizes import size_text
from stellwerk_environment_build.image_config import config_of
from stellwerk_environment_build.image_engine import (
    PUSH_NEWS_BYTES,
    Client,
    ImageSettings,
    Say,
    push,
)
from stellwerk_environment_build.image_layers import Layer
from stellwerk_environment_build.image_registry import CONFIG, LAYER, MANIFEST, Registry
from stellwerk_environment_build.known_layers import Blob, KnownLayers
from stellwerk_environment_build.layer_archive import LayerArchive

BASE_TAG = "base-"
"""How tags of base images begin in the repository of environments."""
AT_A_TIME = 4
"""Layers that are sent at once."""
_TRIES = 3
_base_alone = threading.Lock()
"""Builds of this process push a base one after the other, so the second finds it there."""


@dataclass(frozen=True)
class Delivery:
    """What both ways share. ``base`` is the engine's image; ``archive`` makes a layer's bytes."""

    client: Client
    settings: ImageSettings
    base: Any
    known: KnownLayers
    archive: Callable[[Layer], LayerArchive]
    say: Say

    def to_registry(self, tag: str, layers: Sequence[Layer]) -> tuple[str, list[Blob]]:
        """The image's reference by digest, and its layers."""
        with closing(Registry(self.settings)) as registry:
            below = self._base_there(registry)
            progress = _Progress(self.say)

            def deliver(layer: Layer) -> Blob:
                known = self.known.get(layer.key)
                if known is not None and registry.has(known.digest):
                    return known
                made = registry.upload(self.archive(layer), progress.add)
                self.known.put(layer.key, made)
                progress.layers += 1
                return made

            with ThreadPoolExecutor(AT_A_TIME, "image-layer") as threads:
                blobs = list(threads.map(deliver, layers))
            config = config_of(self.base.attrs, [each.digest for each in blobs])
            about = _descriptor(config)
            if not registry.has(about["digest"]):
                registry.put_blob(about["digest"], config)
            ours = [
                {"mediaType": LAYER, "digest": each.digest, "size": each.size} for each in blobs
            ]
            manifest = {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": about,
                "layers": [*below, *ours],
            }
            digest = registry.put_manifest(tag, manifest)
        moved = size_text(progress.bytes)
        self.say(
            f"      pushed to {self.settings.registry}: {progress.layers} of {len(layers)} layers, "
            f"{moved} moved, {digest}"
        )
        return f"{self.settings.repository}@{digest}", blobs

    def to_engine(
        self, tag: str, layers: Sequence[Layer], there: Sequence[str]
    ) -> tuple[str, list[Blob]]:
        """The image's id, and its layers; those that begin as ``there`` does the engine has."""
        name = f"{self.settings.repository}:{tag}"
        before = None
        with suppress(ImageNotFound):
            before = self.client.images.get(name).id
        blobs = [self.known.get(each.key) for each in layers]
        has = 0
        while has < min(len(there), len(layers)) and _digest(blobs[has]) == there[has]:
            has += 1
        try:
            made = self._load(name, layers, [blob for blob in blobs[:has] if blob])
        except DockerException:
            if not has:
                raise
            has, made = 0, self._load(name, layers, [])  # they left the engine meanwhile
        image = self.client.images.get(name)
        if before not in {None, image.id}:
            with suppress(APIError):
                self.client.images.remove(before)
        sent = size_text(sum(each.size for each in made[has:]))
        self.say(f"      {len(layers) - has} of {len(layers)} layers, {sent} moved")
        return str(image.id), made

    def _load(self, name: str, layers: Sequence[Layer], has: list[Blob]) -> list[Blob]:
        made = [*has]

        def stream() -> Iterator[bytes]:
            for number, layer in enumerate(layers[len(has) :], len(has)):
                archive = self.archive(layer)
                yield _entry(_place(number), len(archive))
                yield from archive
                yield bytes(-len(archive) % tarfile.BLOCKSIZE)
                made.append(Blob(digest=archive.digest, size=len(archive)))
                self.known.put(layer.key, made[-1])
            config = config_of(self.base.attrs, [each.digest for each in made])
            below = len(self.base.attrs["RootFS"]["Layers"])
            files = [f"base{number}" for number in range(below)]
            files += [_place(number) for number in range(len(layers))]
            manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": files}]
            for inside, data in (
                ("config.json", config),
                ("manifest.json", json.dumps(manifest).encode()),
            ):
                yield _entry(inside, len(data)) + data + bytes(-len(data) % tarfile.BLOCKSIZE)
            yield bytes(2 * tarfile.BLOCKSIZE)

        for event in self.client.api.load_image(stream(), quiet=True):
            if trouble := event.get("error") or event.get("message"):
                raise DockerException(trouble)
        return made

    def _base_there(self, registry: Registry) -> list[dict[str, Any]]:
        """The base's layers in the registry; the engine pushes them the first time."""
        tag = f"{BASE_TAG}{str(self.base.id).removeprefix('sha256:')[:40]}"
        with _base_alone:
            found = registry.manifest(tag)
            if found is None:
                self._push_base(tag)
                found = registry.manifest(tag)
        layers: list[dict[str, Any]] = (found or {}).get("layers", [])
        if len(layers) != len(self.base.attrs["RootFS"]["Layers"]):
            raise DockerException("the registry has other layers of the base image")
        return layers

    def _push_base(self, tag: str) -> None:
        """Push the base; again if another builder on this engine takes its name away meanwhile.

        One does when it has pushed the same base, and when it starts.
        """
        name = f"{self.settings.repository}:{tag}"
        for tries_left in reversed(range(_TRIES)):
            self.base.tag(self.settings.repository, tag)
            try:
                push(self.client, tag, self.settings, self.say)
            except DockerException:
                if not tries_left or self._is_there(name):
                    raise
            else:
                return
            finally:
                with suppress(ImageNotFound):
                    self.client.images.remove(name, noprune=True)

    def _is_there(self, name: str) -> bool:
        try:
            self.client.images.get(name)
        except ImageNotFound:
            return False
        return True


class _Progress:
    """Says from time to time how much was sent."""

    def __init__(self, say: Say) -> None:
        self._say, self._alone = say, threading.Lock()
        self.bytes = self.layers = self._told = 0

    def add(self, more: int) -> None:
        with self._alone:
            self.bytes += more
            if self.bytes - self._told < PUSH_NEWS_BYTES:
                return
            self._told = self.bytes
        self._say(f"      … pushed {size_text(self._told)}")


def _descriptor(config: bytes) -> dict[str, Any]:
    digest = f"sha256:{hashlib.sha256(config).hexdigest()}"
    return {"mediaType": CONFIG, "digest": digest, "size": len(config)}


def _digest(blob: Blob | None) -> str | None:
    return blob.digest if blob else None


def _place(number: int) -> str:
    return f"layer{number}.tar"


def _entry(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT)
