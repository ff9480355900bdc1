"""Content-addressed upload: only what the store does not have yet, eight files at a time."""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import httpx2

from stellwerk.api import BlobPlan, BlobPlanRequest, BlobRef
from stellwerk.client import Client, pause_before
from stellwerk.errors import ServiceUnavailableError
from stellwerk.localfiles import HashedFile, chunks
from stellwerk.progress import Progress

PARALLEL = 8
PLAN_SIZE = 2000
_TRIES = 5


def upload(
    client: Client, files: Sequence[HashedFile], *, label: str = "Upload", show: bool = False
) -> int:
    """Make sure the store has all ``files``. Returns how many had to be uploaded."""
    by_digest = {each.entry.sha256: each for each in files}
    missing = missing_blobs(client, list(by_digest.values()))
    size = sum(by_digest[digest].entry.size for digest in missing)
    with (
        Progress(label, len(missing), size, show=show) as progress,
        ThreadPoolExecutor(PARALLEL, thread_name_prefix="upload") as pool,
    ):
        jobs = [
            pool.submit(_put, client, by_digest[digest], url, progress)
            for digest, url in missing.items()
        ]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            for job in jobs:
                job.cancel()
            raise
    return len(missing)


def missing_blobs(client: Client, files: Sequence[HashedFile]) -> dict[str, str]:
    """Digest → address to PUT it, for those of ``files`` that the store lacks."""
    missing: dict[str, str] = {}
    for start in range(0, len(files), PLAN_SIZE):
        part = files[start : start + PLAN_SIZE]
        refs = tuple(BlobRef(sha256=each.entry.sha256, size=each.entry.size) for each in part)
        plan = client.call("POST", "/blobs", BlobPlan, body=BlobPlanRequest(blobs=refs))
        missing.update({each.sha256: each.url for each in plan.missing})
    return missing


def _put(client: Client, file: HashedFile, url: str, progress: Progress) -> None:
    for attempt in range(_TRIES):
        if attempt:
            time.sleep(pause_before(attempt))
            fresh = missing_blobs(client, [file])  # the address may have expired
            if file.entry.sha256 not in fresh:  # stored after all, by us or by somebody else
                break
            url = fresh[file.entry.sha256]
        reason = _try_put(client, file, url, progress)
        if reason is None:
            break
    else:
        raise ServiceUnavailableError(
            f"{file.path} could not be uploaded to the object store after {_TRIES} tries: {reason}",
            code="store.unavailable",
        )
    progress.file_done()


def _try_put(client: Client, file: HashedFile, url: str, progress: Progress) -> str | None:
    """One PUT: None where it succeeded, else why not."""
    sent = 0

    def counted() -> Iterator[bytes]:
        nonlocal sent
        for chunk in chunks(file.path, file.entry.sha256):
            yield chunk
            sent += len(chunk)
            progress.add(len(chunk))

    try:
        response = client.store(url).put(
            url,
            content=counted(),
            headers={"Content-Length": str(file.entry.size)},
            timeout=httpx2.Timeout(120.0, connect=5.0),
        )
    except httpx2.TransportError as error:
        reason = str(error) or type(error).__name__
    else:
        if response.status_code < 300:
            return None
        reason = f"HTTP status {response.status_code}"
    progress.add(-sent)
    return reason
