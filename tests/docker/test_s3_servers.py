"""What Stellwerk needs of an S3 server, tried on each of them; docs/s3-servers.md has the table."""

import asyncio
import concurrent.futures
import hashlib
import io
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx2
import images
import pytest
import urllib3
from minio import Minio
from minio.commonconfig import CopySource
from minio.deleteobjects import DeleteObject
from minio.error import S3Error
from s3_servers import MinioServer, Proxy, RustfsServer

from stellwerk.errors import NotFoundError, ProtocolError, ServiceUnavailableError
from stellwerk_kit.objects import ObjectStore, blob_key
from stellwerk_kit.settings import ServiceSettings
from stellwerk_kit.testing.servers import S3Server

BUCKET = "certified"
MIB = 1 << 20
SERVERS: dict[str, Callable[[Path], S3Server]] = {"seaweedfs": S3Server, "minio": MinioServer}
if "STELLWERK_TEST_RUSTFS" in os.environ:  # no package of it is to be had everywhere
    SERVERS["rustfs"] = RustfsServer


@pytest.fixture(scope="module", params=SERVERS)
def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    made = SERVERS[request.param](tmp_path_factory.mktemp(request.param)).start()
    yield made
    made.remove()


def settings(server: S3Server, **options: Any) -> ServiceSettings:
    values = {
        "s3_endpoint": server.endpoint,
        "s3_credentials": server.credentials,
        "s3_bucket": BUCKET,
    }
    return ServiceSettings(**values | options)


@asynccontextmanager
async def store_at(server: S3Server, **options: Any) -> AsyncIterator[ObjectStore]:
    store = ObjectStore(settings(server, **options))
    try:
        yield store
    finally:
        store.close()


@pytest.fixture
async def store(server: S3Server) -> AsyncIterator[ObjectStore]:
    async with store_at(server) as made:
        await made.ensure_bucket()
        yield made


@pytest.fixture
def client(server: S3Server, store: ObjectStore) -> Iterator[Minio]:
    pool = urllib3.PoolManager(retries=False, timeout=30)
    yield Minio(
        server.endpoint, "test", "test-secret", secure=False, region="us-east-1", http_client=pool
    )
    pool.clear()


def digest_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def put(client: Minio, name: str, data: bytes, **options: Any) -> None:
    client.put_object(BUCKET, name, io.BytesIO(data), len(data), **options)


def get(client: Minio, name: str, **options: Any) -> bytes:
    answer = client.get_object(BUCKET, name, **options)
    try:
        return answer.read()
    finally:
        answer.close()
        answer.release_conn()


def code_of(work: Callable[[], Any]) -> str:
    with pytest.raises(S3Error) as caught:
        work()
    return str(caught.value.code)


async def test_put_and_get(store: ObjectStore) -> None:
    data = os.urandom(300_000)
    assert await store.get_bytes(await store.put_bytes(data)) == data


async def test_empty_object(store: ObjectStore, client: Minio) -> None:
    digest = await store.put_bytes(b"")
    assert await store.size(digest) == 0
    assert await store.get_bytes(digest) == b""


def test_ranges(client: Minio) -> None:
    data = os.urandom(2 * MIB)
    put(client, "ranges", data)
    assert get(client, "ranges", offset=1_000_000, length=100) == data[1_000_000:1_000_100]
    assert get(client, "ranges", offset=2 * MIB - 5) == data[-5:]


def test_multipart_of_unknown_length(client: Minio) -> None:
    data = os.urandom(11 * MIB)
    client.put_object(BUCKET, "parts", io.BytesIO(data), -1, part_size=5 * MIB)
    assert digest_of(get(client, "parts")) == digest_of(data)
    assert client.stat_object(BUCKET, "parts").size == len(data)


async def test_large_file(store: ObjectStore, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(40 * MIB))
    digest, size = await store.put_file(source)
    await store.fetch(digest, tmp_path / "copy", size)
    assert (tmp_path / "copy").read_bytes() == source.read_bytes()


async def test_presigned_get(store: ObjectStore) -> None:
    url = store.presign_get(await store.put_bytes(b"presigned"), "résumé.txt")
    answer = httpx2.get(url)
    assert answer.content == b"presigned"
    assert (
        answer.headers["content-disposition"] == "attachment; filename*=UTF-8''r%C3%A9sum%C3%A9.txt"
    )
    assert httpx2.get(url, headers={"Range": "bytes=3-5"}).content == b"sig"


async def test_presigned_put(store: ObjectStore) -> None:
    data = os.urandom(6 * MIB)
    assert (
        httpx2.put(store.presign_put(digest_of(data)), content=data, timeout=60).status_code == 200
    )
    assert await store.get_bytes(digest_of(data)) == data


async def test_presigned_url_opens_one_object_for_its_time(
    store: ObjectStore, client: Minio
) -> None:
    first, second = await store.put_bytes(b"one"), await store.put_bytes(b"two")
    url = store.presign_get(first)
    assert httpx2.get(url.replace(blob_key(first), blob_key(second))).status_code == 403
    assert httpx2.put(url, content=b"other").status_code == 403
    past = datetime.now(UTC) - timedelta(hours=1)
    old = client.presigned_get_object(
        BUCKET, blob_key(first), timedelta(minutes=15), request_date=past
    )
    assert httpx2.get(old).status_code == 403


def put_once(client: Minio, name: str, data: bytes) -> int:
    url = client.presigned_put_object(BUCKET, name)
    return httpx2.put(url, content=data, headers={"If-None-Match": "*"}).status_code


def test_conditional_put(client: Minio) -> None:
    assert put_once(client, "once", b"first") == 200
    assert put_once(client, "once", b"second") == 412
    assert get(client, "once") == b"first"


def test_conditional_put_of_many_at_once(client: Minio) -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        codes = list(threads.map(lambda n: put_once(client, "race", b"%d" % n), range(8)))
    assert codes.count(200) == 1, codes
    assert set(codes) <= {200, 409, 412}
    assert get(client, "race") == b"%d" % codes.index(200)


def test_list(client: Minio) -> None:
    names = [f"list/{number // 700}/{number:04}" for number in range(1400)]
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda name: put(client, name, b"x"), names))
    found = [each.object_name for each in client.list_objects(BUCKET, "list/", recursive=True)]
    assert found == names
    folders = [each.object_name for each in client.list_objects(BUCKET, "list/")]
    assert folders == ["list/0/", "list/1/"]
    after = client.list_objects(BUCKET, "list/", recursive=True, start_after="list/1/1398")
    assert [each.object_name for each in after] == ["list/1/1399"]


async def test_delete(store: ObjectStore, client: Minio) -> None:
    digest = await store.put_bytes(b"to be deleted")
    await store.delete(digest)
    await store.delete(digest)
    assert await store.size(digest) is None
    with pytest.raises(NotFoundError):
        await store.get_bytes(digest)
    for name in ("bulk/a", "bulk/b"):
        put(client, name, b"x")
    wanted = [DeleteObject("bulk/a"), DeleteObject("bulk/b"), DeleteObject("bulk/none")]
    assert list(client.remove_objects(BUCKET, wanted)) == []
    assert list(client.list_objects(BUCKET, "bulk/", recursive=True)) == []


def test_copy_and_metadata(client: Minio) -> None:
    put(client, "meta", b"x", metadata={"x-amz-meta-run": "r1"})
    client.copy_object(BUCKET, "meta-copy", CopySource(BUCKET, "meta"))
    assert (client.stat_object(BUCKET, "meta-copy").metadata or {})["x-amz-meta-run"] == "r1"


def test_strange_names(client: Minio) -> None:
    for name in ("ä/ö ü.txt", "a+b=c&d", "percent%20", "日本/データ", "~tilde'quote"):
        put(client, name, name.encode())
        assert get(client, name) == name.encode()
        assert name in [each.object_name for each in client.list_objects(BUCKET, name)]


async def test_read_after_overwrite(store: ObjectStore, client: Minio) -> None:
    for number in range(50):
        put(client, "changing", b"%d" % number)
        assert get(client, "changing") == b"%d" % number


async def test_corrupt_blob_is_found(store: ObjectStore, client: Minio) -> None:
    digest = digest_of(b"right")
    put(client, blob_key(digest), b"wrong")
    with pytest.raises(ProtocolError, match="corrupt"):
        await store.get_bytes(digest)
    assert await store.size(digest) is None


async def test_wrong_credentials(server: S3Server, tmp_path: Path) -> None:
    wrong = tmp_path / "keys.json"
    wrong.write_text('{"access_key": "test", "secret_key": "wrong"}')
    async with store_at(server, s3_credentials=wrong) as store:
        with pytest.raises(ServiceUnavailableError, match="SignatureDoesNotMatch"):
            await store.put_bytes(b"no")
    anonymous = httpx2.get(f"http://{server.endpoint}/{BUCKET}/{blob_key(digest_of(b''))}")
    assert anonymous.status_code == 403
    assert httpx2.get(f"http://{server.endpoint}/{BUCKET}?list-type=2").status_code == 403


def test_clock_skew(
    client: Minio, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    if "rustfs" in request.node.name:
        request.applymarker(pytest.mark.xfail(reason="RustFS takes it", strict=True))
    past = datetime.now(UTC) - timedelta(minutes=30)
    monkeypatch.setattr("minio.time.utcnow", lambda: past)
    assert code_of(lambda: put(client, "skewed", b"x")) == "RequestTimeTooSkewed"


async def test_slow_connection(server: S3Server, store: ObjectStore) -> None:
    data = os.urandom(200_000)
    with Proxy(server.endpoint) as proxy:
        proxy.rate = 100_000.0
        async with store_at(server, s3_endpoint=proxy.endpoint) as slow:
            digest = await slow.put_bytes(data)
            assert await slow.get_bytes(digest) == data


async def test_upload_that_is_cut(server: S3Server, store: ObjectStore, client: Minio) -> None:
    """What is cut is not there, not even in part; the client's next try stores it."""
    data = os.urandom(3 * MIB)
    with Proxy(server.endpoint) as proxy:
        proxy.cut_up, proxy.cuts = MIB, 100
        async with store_at(server, s3_endpoint=proxy.endpoint) as cut:
            with pytest.raises(ServiceUnavailableError):
                await cut.put_bytes(data)
            assert await store.size(digest_of(data)) is None
            proxy.cuts = 0
            assert await cut.get_bytes(await cut.put_bytes(data)) == data


async def test_upload_that_is_broken_off(store: ObjectStore, tmp_path: Path) -> None:
    """All but the last byte of one request, then its end: nothing has the name."""
    data = os.urandom(3 * MIB)
    (tmp_path / "file").write_bytes(bytes(3 * MIB))
    with pytest.raises(ProtocolError):
        await store.put_file(tmp_path / "file", known=(digest_of(data), len(data)))
    assert await store.size(digest_of(data)) is None
    assert await store.put_bytes(data) == digest_of(data)


async def test_download_that_is_cut(server: S3Server, store: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(3 * MIB)
    digest = await store.put_bytes(data)
    with Proxy(server.endpoint) as proxy:
        proxy.cut_down, proxy.cuts = MIB, 1
        async with store_at(server, s3_endpoint=proxy.endpoint) as cut:
            with pytest.raises((ServiceUnavailableError, ProtocolError)):
                await cut.fetch(digest, tmp_path / "file", len(data))
            assert list(tmp_path.iterdir()) == []
            await cut.fetch(digest, tmp_path / "file", len(data))
    assert (tmp_path / "file").read_bytes() == data
    assert await store.size(digest) == len(data)


async def test_kill_and_restart_keeps_what_was_acknowledged(
    server: S3Server, store: ObjectStore
) -> None:
    acknowledged: list[str] = []

    async def write(number: int) -> None:
        for round_ in range(1000):
            try:
                acknowledged.append(await store.put_bytes(b"%d %d" % (number, round_) * 500))
            except ServiceUnavailableError:
                return

    writers = [asyncio.ensure_future(write(number)) for number in range(4)]
    while len(acknowledged) < 100:
        await asyncio.sleep(0.01)
    await asyncio.to_thread(server.kill)
    await asyncio.gather(*writers)
    await asyncio.to_thread(server.start)
    deadline = asyncio.get_running_loop().time() + 60
    while True:  # SeaweedFS answers 500 until its volumes have reported
        try:
            await store.get_bytes(acknowledged[0])
            break
        except ServiceUnavailableError:
            assert asyncio.get_running_loop().time() < deadline
    for digest in acknowledged:
        await store.get_bytes(digest)


def test_the_table_names_every_check() -> None:
    page = (images.ROOT / "docs/s3-servers.md").read_text()
    checks = [
        name.removeprefix("test_").replace("_", " ")
        for name in globals()
        if name.startswith("test_")
    ]
    rows = re.findall(r"^\| ([a-z ]+) \| (yes|no)", page, re.MULTILINE)
    assert sorted(check for check in checks if check != "the table names every check") == sorted(
        name for name, _ in rows
    )
