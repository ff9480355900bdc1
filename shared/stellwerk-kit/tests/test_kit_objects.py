"""Blobs on the real S3 server: verified, idempotent, presigned."""

import hashlib
import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest

from stellwerk.errors import NotFoundError, ProtocolError, ServiceUnavailableError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_kit.objects import ObjectStore, blob_key
from stellwerk_kit.settings import ServiceSettings


async def test_blobs_round_trip(objects: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "big.bin"
    source.write_bytes(bytes(range(256)) * 40_000)
    digest, size = await objects.put_file(source)
    assert (digest, size) == (hashlib.sha256(source.read_bytes()).hexdigest(), 10_240_000)
    await objects.fetch(digest, tmp_path / "copy" / "big.bin", size)
    assert (tmp_path / "copy" / "big.bin").read_bytes() == source.read_bytes()
    assert await objects.sizes([digest, "0" * 64]) == {digest: size, "0" * 64: None}
    with pytest.raises(NotFoundError):
        await objects.get_bytes("0" * 64)
    await objects.delete(digest)
    assert await objects.size(digest) is None


async def test_a_file_that_changes_is_not_stored(objects: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "growing.bin"
    source.write_bytes(b"a" * 1_000_000)
    known = (hashlib.sha256(b"b" * 1_000_000).hexdigest(), 1_000_000)  # what it was when hashed
    with pytest.raises(ProtocolError, match="changed while it was uploaded"):
        await objects.put_file(source, known=known)
    assert await objects.size(known[0]) is None


async def test_a_blob_that_others_use_outlives_a_wrong_upload(
    objects: ObjectStore, tmp_path: Path
) -> None:
    source = tmp_path / "status.txt"
    source.write_bytes(b"new")
    digest = await objects.put_bytes(b"old")
    with pytest.raises(ProtocolError, match="changed while it was uploaded"):
        await objects.put_file(source, known=(digest, 3))
    assert await objects.get_bytes(digest) == b"old"


def before(do: Callable[[], object], then: Callable[..., Any]) -> Callable[..., Any]:
    """``then``, with something done first each time."""
    return lambda *args, **more: (do(), then(*args, **more))[1]


@pytest.mark.parametrize(
    ("size", "still"), [(10, False), (10, True), (200_000, False), (200_000, True)]
)
async def test_a_file_that_is_only_touched_is_stored(
    objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, still: bool
) -> None:
    source = tmp_path / "touched"
    source.write_bytes(os.urandom(size))

    def touch() -> None:
        os.utime(source, ns=(1, 1))

    monkeypatch.setattr(objects._pool, "request", before(touch, objects._pool.request))
    monkeypatch.setattr(objects._client, "put_object", before(touch, objects._client.put_object))
    digest, _ = await objects.put_file(source, still=still)
    assert source.stat().st_mtime_ns == 1
    assert await objects.get_bytes(digest) == source.read_bytes()


@pytest.mark.parametrize("still", [False, True])
async def test_a_large_file_that_is_written_to_is_not_stored(
    objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, still: bool
) -> None:
    source = tmp_path / "written"
    source.write_bytes(os.urandom(200_000))
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    write = before(lambda: source.write_bytes(bytes(200_000)), objects._pool.request)
    monkeypatch.setattr(objects._pool, "request", write)
    with pytest.raises(ProtocolError, match="changed while it was uploaded"):
        await objects.put_file(source, still=still)
    assert await objects.size(digest) is None


@pytest.mark.parametrize("still", [False, True])
async def test_a_file_that_changes_takes_nothing_from_who_stores_the_same_rightly(
    objects: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, still: bool
) -> None:
    """The right one comes at any moment: before, while and after the wrong one is sent."""
    data = os.urandom(3_000_000)
    digest = hashlib.sha256(data).hexdigest()
    source, right = tmp_path / "written", tmp_path / "right"
    right.write_bytes(data)
    request = objects._pool.request

    def meanwhile(*args: Any, **more: Any) -> Any:
        """What is under the name at the moment that the wrong bytes have been sent."""
        source.write_bytes(bytes(3_000_000))
        try:
            return request(*args, **more)
        finally:
            seen.append(objects._size(digest))
            monkeypatch.setattr(objects._pool, "request", request)
            objects._put_file(right, None, still=True)
            monkeypatch.setattr(objects._pool, "request", meanwhile)

    seen: list[int | None] = []
    monkeypatch.setattr(objects._pool, "request", meanwhile)
    source.write_bytes(data)
    with pytest.raises(ProtocolError, match="changed while it was uploaded"):
        await objects.put_file(source, known=(digest, len(data)), still=still)
    assert seen[0] is None  # nothing that another would take for the blob
    assert await objects.get_bytes(digest) == data


async def test_a_range_of_a_blob(objects: ObjectStore, tmp_path: Path) -> None:
    data = bytes(range(256)) * 40_000
    digest = await objects.put_bytes(data)
    await objects.fetch_range(digest, tmp_path / "part", 5_000_000, 1_000)
    assert (tmp_path / "part").read_bytes()[5_000_000:] == data[5_000_000:5_001_000]
    with pytest.raises(ProtocolError, match="shorter"):
        await objects.fetch_range(digest, tmp_path / "part", len(data) - 10, 20)


async def test_corrupt_blob_is_refused_and_removed(objects: ObjectStore) -> None:
    digest = hashlib.sha256(b"right").hexdigest()
    wrong = objects.presign_put(digest)
    assert httpx2.put(wrong, content=b"wrong").status_code == 200
    with pytest.raises(ProtocolError, match="corrupt"):
        await objects.get_bytes(digest)
    assert await objects.size(digest) is None


async def test_manifest_and_presigned_download(objects: ObjectStore) -> None:
    digest = await objects.put_bytes(b"hello")
    manifest = Manifest(entries=(ManifestEntry(path="a/b.txt", size=5, sha256=digest),))
    assert await objects.get_manifest(await objects.put_manifest(manifest)) == manifest
    answer = httpx2.get(objects.presign_get(digest, "a/b.txt"))
    assert answer.content == b"hello"
    assert "b.txt" in answer.headers["content-disposition"]
    assert blob_key(digest) in objects.presign_get(digest)


@pytest.mark.parametrize("status", [403, 404, 429])
async def test_what_is_no_object_store_is_told_as_that(tmp_path: Path, status: int) -> None:
    """A proxy that refuses, or a wrong address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<h1>Not here</h1>")

        def log_message(self, *_: object) -> None:
            pass

    keys = tmp_path / "keys.json"
    keys.write_text('{"access_key": "a", "secret_key": "b"}')
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        store = ObjectStore(
            ServiceSettings(s3_endpoint=f"127.0.0.1:{server.server_port}", s3_credentials=keys)
        )
        with pytest.raises(ServiceUnavailableError, match="does not answer as an object store"):
            await store.get_bytes("a" * 64)
        store.close()
        server.shutdown()
        thread.join()
