"""The object store with its real configuration: ready for the platform, closed for others."""

import contextlib
import io
import json
import os
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio
import urllib3
from embedded_setup import Prepared
from minio import Minio
from minio.error import S3Error

from stellwerk_embedded.probes import S3Probe, problem
from stellwerk_embedded.s3_config import BUCKET
from stellwerk_kit.testing import wait_until

pytestmark = pytest.mark.servers


@pytest_asyncio.fixture
async def store(prepared: Prepared) -> AsyncIterator[Prepared]:
    process = prepared.run("s3")
    probe = S3Probe(prepared.ports["s3"], prepared.layout.secrets / "s3.json")

    async def ready() -> bool:
        assert process.poll() is None, prepared.layout.log("s3").read_text()[-2000:]
        return await problem(probe) is None and listens(prepared.ports["s3-admin"])

    try:
        await wait_until(ready, 30)
        yield prepared
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)  # it waits for connections that clients keep open
        process.kill()
        process.wait()


def listens(port: int) -> bool:
    """The store's pages for people begin after the store itself."""
    with socket.socket() as asked:
        return asked.connect_ex(("127.0.0.1", port)) == 0


def client(prepared: Prepared, **keys: str) -> Minio:
    known = json.loads((prepared.layout.secrets / "s3.json").read_text()) | keys
    return Minio(
        f"127.0.0.1:{prepared.ports['s3']}",
        known["access_key"],
        known["secret_key"],
        secure=False,
        region="us-east-1",
        http_client=urllib3.PoolManager(timeout=10, retries=False),
    )


def status(prepared: Prepared, port: str, path: str, method: str = "GET") -> int:
    url = f"http://127.0.0.1:{prepared.ports[port]}{path}"
    data = b"x" if method != "GET" else None
    try:
        asked = urllib.request.Request(url, method=method, data=data)
        with urllib.request.urlopen(asked, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


async def test_store_serves_the_platform_and_nobody_else(store: Prepared) -> None:
    platform = client(store)
    assert [bucket.name for bucket in platform.list_buckets()] == [BUCKET]
    data = os.urandom(9_000_000)  # more than two of the store's own pieces
    platform.put_object(BUCKET, "blob", io.BytesIO(data), len(data))
    answer = platform.get_object(BUCKET, "blob")
    assert answer.read() == data
    answer.close()
    answer.release_conn()

    with pytest.raises(S3Error, match="SignatureDoesNotMatch"):
        client(store, secret_key="wrong").list_buckets()
    with pytest.raises(S3Error, match="InvalidAccessKeyId"):
        client(store, access_key="unknown").list_buckets()
    assert status(store, "s3", f"/{BUCKET}/blob") == 403
    for path in ("/", f"/buckets/{BUCKET}/blob"):
        assert status(store, "s3-filer", path) == 401
    assert status(store, "s3-filer", f"/buckets/{BUCKET}/forged", "POST") == 401
    assert status(store, "s3-admin", "/") == 404

    refused = json.loads((store.layout.secrets / "s3.json").read_text()) | {"secret_key": "wrong"}
    wrong = store.layout.home / "wrong.json"
    wrong.write_text(json.dumps(refused))
    assert await problem(S3Probe(store.ports["s3"], wrong)) == "GET / answers 403"


async def test_store_listens_on_loopback_alone(store: Prepared) -> None:
    ours = {port for name, port in store.ports.items() if name.startswith("s3")}

    def listening() -> dict[int, str]:
        return {
            connection.laddr.port: connection.laddr.ip
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port in ours
        }

    await wait_until(lambda: listening().keys() == ours, 20)
    assert set(listening().values()) == {"127.0.0.1"}
