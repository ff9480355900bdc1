"""Which images leave the registry with their environment. A registry's deletions; no engine."""

import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from stellwerk_environment_build.cache import READY, EnvironmentCache, Ready
from stellwerk_environment_build.image_engine import ImageSettings
from stellwerk_environment_build.images import ImageMaker
from stellwerk_environment_build.known_layers import Blob, KnownLayers
from stellwerk_environment_build.pruning import Pruner, Wanted
from stellwerk_kit.clock import SystemClock

DAY = 86_400


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, list[str]]]:
    """``host:port`` of what takes deletions, and their paths; there is no engine."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///none.sock")
    deleted: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            deleted.append(self.path)
            self.send_response(202)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}", deleted
        server.shutdown()
        thread.join()


@pytest.mark.usefixtures("engine_refuses")
async def test_an_image_stays_while_another_environment_has_it(
    tmp_path: Path, registry: tuple[str, list[str]]
) -> None:
    host, deleted = registry
    cache = EnvironmentCache(tmp_path)
    image = f"{host}/stellwerk/environment@sha256:{'a' * 64}"

    layers = {
        name: Blob(digest=f"sha256:{number:064}", size=1)
        for number, name in enumerate(("both", "b", "c"))
    }
    known = KnownLayers(cache.layers)
    for name, blob in layers.items():
        known.put(name, blob)

    def there(letter: str, days: float) -> None:
        ready = Ready(
            env_id=letter * 40, python="3.11.2", image=image, built_at=datetime.now(UTC),
            builder_version="1", image_layers=(layers["both"].digest, layers[letter].digest),
        )  # fmt: skip
        cache.path(ready.env_id).mkdir()
        path = cache.path(ready.env_id) / READY
        path.write_text(ready.model_dump_json())
        then = time.time() - days * DAY
        os.utime(path, (then, then))

    there("b", 40)
    there("c", 20)
    pruner = Pruner(cache, ImageMaker(ImageSettings("base", host)), SystemClock())
    for days, gone, paths in (
        (30, "b", []),
        (10, "c", [f"/v2/stellwerk/environment/manifests/sha256:{'a' * 64}"]),
    ):
        done = await pruner.prune(Wanted(older_than_s=days * DAY, from_registry=True))
        assert [each.env_id for each in done.removed] == [gone * 40]
        assert deleted == paths
        assert known.get(gone) is None, "a layer that no image has"
        assert (known.get("both") is None) == (gone == "c")
