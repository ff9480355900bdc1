"""The object store: content-addressed blobs in one bucket of any S3 server.

Keys are ``sha256/<first two>/<digest>``. Every read is verified; a blob whose bytes do not match
its name is deleted, so that the next upload can mend it.
"""

import asyncio
import hashlib
import os
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from io import BytesIO
from pathlib import Path
from typing import IO, BinaryIO, TypeVar, cast
from urllib.parse import quote

import structlog
import urllib3
from minio import Minio
from minio.error import MinioException, S3Error
from pydantic import ValidationError

from stellwerk.errors import NotFoundError, ProtocolError, ServiceUnavailableError
from stellwerk.manifest import Manifest
from stellwerk_kit.beneath import OpenFile
from stellwerk_kit.held import CHUNK, Held, Readable, TouchedError, changed, hash_stream, version
from stellwerk_kit.settings import ServiceSettings

T = TypeVar("T")
MAX_MANIFEST_BYTES = 64 * 1024 * 1024
PRESIGN_FOR = timedelta(minutes=15)
PARALLEL = 8
SMALL = 64 * 1024
"""Up to this size a file is sent again rather than asked for: one request instead of two."""
ONE_REQUEST = 4 * 1024**3
"""S3 takes 5 GiB in one request."""
SEND_TRIES = 3
SEND_AGAIN_S = 0.3
STORED_FOR_S = 10.0
STORED_KEPT = 1024

log = structlog.get_logger()


def blob_key(digest: str) -> str:
    """Object key of a blob."""
    return f"sha256/{digest[:2]}/{digest}"


def hash_file(path: Path) -> tuple[str, int]:
    """SHA-256 and size of a file."""
    with path.open("rb") as stream:
        return hash_stream(stream)


class ObjectStore:
    """Blobs and manifests. Methods raise ServiceUnavailableError when the server is away."""

    def __init__(self, settings: ServiceSettings) -> None:
        keys = settings.read_credentials(settings.s3_credentials)
        self._bucket = settings.s3_bucket
        self._pool = _pool()
        self._client = _client(settings.s3_endpoint, keys, settings)
        public = settings.s3_public_endpoint or settings.s3_endpoint
        self._signers = {False: _client(public, keys, settings), True: self._client}
        self._threads = ThreadPoolExecutor(PARALLEL, thread_name_prefix="s3")
        self._lately: OrderedDict[str, float] = OrderedDict()

    def close(self) -> None:
        """End the worker threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def ensure_bucket(self) -> None:
        """Make the bucket if it is not there."""
        await self._run(self._ensure_bucket)

    async def put_bytes(self, data: bytes) -> str:
        """Store ``data``; returns its digest.

        What this process stored in the last 10 seconds is there: an empty log, the list of no
        files and their like are sent once, not with every run.
        """
        digest, now = hashlib.sha256(data).hexdigest(), time.monotonic()
        if self._lately.get(digest, 0.0) < now:
            await self._run(lambda: self._put(digest, BytesIO(data), len(data)))
            self._lately[digest] = now + STORED_FOR_S
            self._lately.move_to_end(digest)
            if len(self._lately) > STORED_KEPT:
                self._lately.popitem(last=False)
        return digest

    async def put_file(
        self, file: Path | OpenFile, *, known: tuple[str, int] | None = None, still: bool = False
    ) -> tuple[str, int]:
        """Store a file, by its path or open; returns digest and size. ``known`` skips hashing.

        A file that changes while it is read raises ProtocolError ``output.changed``. ``still``: who
        could write to it has ended, so that a look at its times is enough to know. An open file is
        closed at the end.
        """

        def put() -> tuple[str, int]:  # holds an open file until the thread has read it
            if isinstance(file, Path):
                return self._put_file(file, known, still=still)
            try:
                return self._put_file(file.path, known, still=still)
            finally:
                file.close()

        return await self._run(put)

    async def get_bytes(self, digest: str, limit: int = MAX_MANIFEST_BYTES) -> bytes:
        """A whole blob of at most ``limit`` bytes. Raises NotFoundError, ProtocolError."""
        return await self._run(lambda: self._get_bytes(digest, limit))

    async def fetch(self, digest: str, path: Path, size: int) -> None:
        """Write a blob to ``path``, verified, by an atomic rename."""
        await self._run(lambda: self._fetch(digest, path, size))

    async def fetch_range(self, digest: str, path: Path, start: int, length: int) -> None:
        """Write a part of a blob to its place in the file ``path``. Not verified: that needs all.

        Raises NotFoundError, ProtocolError when the store has fewer bytes.
        """
        await self._run(lambda: self._fetch_range(digest, path, start, length))

    async def size(self, digest: str) -> int | None:
        """Size of a blob, None if it is not there."""
        return await self._run(lambda: self._size(digest))

    async def sizes(self, digests: Iterable[str]) -> dict[str, int | None]:
        """Sizes of many blobs, asked for in parallel."""
        unique = list(dict.fromkeys(digests))
        found = await asyncio.gather(*(self.size(digest) for digest in unique))
        return dict(zip(unique, found, strict=True))

    def presign_get(self, digest: str, filename: str | None = None, *, inside: bool = False) -> str:
        """URL to read one blob for 15 minutes, as an attachment called ``filename``.

        ``inside``: for who reaches the store where services do, not at its public address.
        """
        extra: dict[str, str | list[str] | tuple[str]] | None = None
        if filename:
            name = quote(filename.rsplit("/", 1)[-1])
            extra = {"response-content-disposition": f"attachment; filename*=UTF-8''{name}"}
        return self._signers[inside].presigned_get_object(
            self._bucket, blob_key(digest), expires=PRESIGN_FOR, extra_query_params=extra
        )

    def presign_put(self, digest: str, *, inside: bool = False) -> str:
        """URL to store one blob within 15 minutes."""
        return self._signers[inside].presigned_put_object(
            self._bucket, blob_key(digest), expires=PRESIGN_FOR
        )

    async def put_manifest(self, manifest: Manifest) -> str:
        """Store a manifest; returns its digest."""
        return await self.put_bytes(manifest.canonical())

    async def get_manifest(self, digest: str) -> Manifest:
        """A stored manifest. Raises NotFoundError, ProtocolError for one that is malformed."""
        data = await self.get_bytes(digest)
        try:
            return Manifest.model_validate_json(data)
        except ValidationError as error:
            raise ProtocolError(
                f"blob {digest[:12]} is no manifest", code="manifest.malformed"
            ) from error

    async def delete(self, digest: str) -> None:
        """Remove a blob; one that is not there is no error."""
        self._lately.pop(digest, None)
        await self._run(lambda: self._client.remove_object(self._bucket, blob_key(digest)))

    async def _run(self, work: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except S3Error as error:
            raise ServiceUnavailableError(
                f"the object store answered {error.code}", code="storage.refused"
            ) from error
        except MinioException as error:  # the others: not in the words of S3
            raise ServiceUnavailableError(
                "what answers at STELLWERK_S3_ENDPOINT does not answer as an object store does",
                code="storage.refused",
            ) from error
        except (urllib3.exceptions.HTTPError, ConnectionError) as error:
            raise ServiceUnavailableError(
                "the object store does not answer", code="storage.down"
            ) from error

    def _ensure_bucket(self) -> None:
        if not self._client.bucket_exists(self._bucket):
            try:
                self._client.make_bucket(self._bucket)
            except S3Error as error:
                if error.code not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def _put(self, digest: str, stream: BinaryIO, size: int) -> None:
        self._client.put_object(self._bucket, blob_key(digest), stream, size)

    def _put_file(
        self, path: Path, known: tuple[str, int] | None, *, still: bool
    ) -> tuple[str, int]:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size <= SMALL:
                return self._put_small(file, known)
            return self._put_large(file, known, still=still)

    def _put_small(self, file: BinaryIO, known: tuple[str, int] | None) -> tuple[str, int]:
        """Send the very bytes that were hashed: whatever the file becomes, the blob is right."""
        before = version(file)
        data = file.read(SMALL + 1)
        found = hashlib.sha256(data).hexdigest(), len(data)
        if known not in {None, found} or len(data) > SMALL or version(file) != before:
            raise changed()
        _send_again(lambda: self._put(found[0], BytesIO(data), len(data)))
        return found

    def _put_large(
        self, file: BinaryIO, known: tuple[str, int] | None, *, still: bool
    ) -> tuple[str, int]:
        before = version(file)
        digest, size = known or hash_stream(file)
        if self._size(digest) == size:
            return digest, size

        def send() -> None:
            if version(file)[0] < size:
                raise changed()
            file.seek(0)
            # Of who could write to it and has ended, its times are enough, unless they differ.
            hashing = not still or version(file) != before
            reader = Held(file, size, digest if hashing else lambda: version(file) == before)
            self._send(digest, reader, size)

        try:
            _send_again(send)
        except TouchedError:
            _send_again(send)
        return digest, size

    def _send(self, digest: str, stream: Readable, size: int) -> None:
        """Store a stream: by one presigned request, whose body is neither held nor hashed again.

        What is small or too large for one request, or was refused, goes by the client's own way.
        """
        if not SMALL < size <= ONE_REQUEST:
            self._put(digest, stream, size)  # type: ignore[arg-type]  # it needs read() only
            return
        url = self._client.presigned_put_object(self._bucket, blob_key(digest), expires=PRESIGN_FOR)
        answer = self._pool.request(
            "PUT",
            url,
            body=cast("IO[bytes]", stream),
            headers={"Content-Length": str(size)},
            retries=False,
        )
        if answer.status >= 300:
            raise ServiceUnavailableError(
                f"the object store answered {answer.status} to an upload", code="storage.refused"
            )

    def _size(self, digest: str) -> int | None:
        try:
            return self._client.stat_object(self._bucket, blob_key(digest)).size
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchObject"}:
                return None
            raise

    def _get_bytes(self, digest: str, limit: int) -> bytes:
        chunks: list[bytes] = []
        total = 0
        for chunk in self._stream(digest):
            total += len(chunk)
            if total > limit:
                raise ProtocolError(
                    f"blob {digest[:12]} is larger than {limit} bytes", code="blob.too_large"
                )
            chunks.append(chunk)
        data = b"".join(chunks)
        self._verify(digest, hashlib.sha256(data).hexdigest())
        return data

    def _fetch(self, digest: str, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".fetch-")
        try:
            hashed = hashlib.sha256()
            with os.fdopen(handle, "wb") as target:
                for chunk in self._stream(digest):
                    hashed.update(chunk)
                    target.write(chunk)
                    if target.tell() > size:
                        raise ProtocolError(
                            f"blob {digest[:12]} is larger than {size} bytes", code="blob.too_large"
                        )
            self._verify(digest, hashed.hexdigest())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

    def _fetch_range(self, digest: str, path: Path, start: int, length: int) -> None:
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            place = start
            for chunk in self._stream(digest, start, length):
                place += os.pwrite(target, chunk, place)
        finally:
            os.close(target)
        if place != start + length:
            raise ProtocolError(
                f"blob {digest[:12]} is shorter than {start + length} bytes", code="blob.too_short"
            )

    def _stream(self, digest: str, start: int = 0, length: int = 0) -> Iterable[bytes]:
        try:
            response = self._client.get_object(self._bucket, blob_key(digest), start, length)
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchObject"}:
                raise NotFoundError(
                    f"blob {digest[:12]} is not in the object store", code="blob.not_found"
                ) from error
            raise
        try:
            yield from response.stream(CHUNK)
        finally:
            response.close()
            response.release_conn()

    def _verify(self, digest: str, actual: str) -> None:
        if actual != digest:
            log.error("corrupt blob removed", action="blob_corrupt", digest=digest)
            self._lately.pop(digest, None)
            self._client.remove_object(self._bucket, blob_key(digest))
            raise ProtocolError(
                f"blob {digest[:12]} is corrupt in the object store", code="blob.corrupt"
            )


def _send_again(send: Callable[[], T]) -> T:
    """Send, and again a few times while the store does not take it."""
    for left in reversed(range(SEND_TRIES)):
        try:
            return send()
        except (ServiceUnavailableError, urllib3.exceptions.HTTPError):
            if not left:
                raise
            time.sleep(SEND_AGAIN_S)  # in a worker thread; the client waits the same way
    raise AssertionError("unreachable")


def _pool() -> urllib3.PoolManager:
    return urllib3.PoolManager(
        timeout=urllib3.Timeout(connect=5, read=60),
        maxsize=PARALLEL,
        retries=urllib3.Retry(total=3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        cert_reqs="CERT_REQUIRED",
        blocksize=CHUNK,
    )


def _client(endpoint: str, keys: dict[str, str], settings: ServiceSettings) -> Minio:
    return Minio(
        endpoint,
        access_key=keys.get("access_key"),
        secret_key=keys.get("secret_key"),
        secure=settings.s3_secure,
        region=settings.s3_region,
        http_client=_pool(),
    )
