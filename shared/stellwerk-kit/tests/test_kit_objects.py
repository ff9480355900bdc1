"""Blobs on the real S3 server: verified, idempotent, presigned."""

import hashlib
from pathlib import Path

import httpx2
import pytest

from stellwerk.errors import NotFoundError, ProtocolError
from stellwerk.manifest import Manifest, ManifestEntry
from stellwerk_kit.objects import ObjectStore, blob_key


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
